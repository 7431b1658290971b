"""Text from files and people made safe for the medium that shows it. It imports neither torch nor rich."""

import html
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

# Invisible, yet ordinary text in Persian, in Indian scripts and in emoji.
JOINERS = "\u200c\u200d"

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def visible(text: object) -> str:
    """``text`` with control and direction characters as escape sequences: ``\\x1b``, ``\\n``, ``\\u202e``.

    These are control characters, line ends, right-to-left marks and other invisible ones, and the bytes of file names
    that are not UTF-8.
    """
    return "".join(_visible(character) for character in str(text))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode("ascii")


def _markdown(text: str) -> str:
    text = re.sub(r"&(?=#|\w+;)", "&amp;", text).replace("<", "&lt;").replace("|", r"\|").replace("](", r"]\(")
    text = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", lambda match: f"\\{match[0]}", text)
    return re.sub(r"(?<=\w)(:)(?=//)", "&#58;", text)  # an address is not made a link


def _csv(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text  # spreadsheets would compute it


MEDIA: dict[str, Callable[[str], str]] = {
    "terminal": str,
    "markdown": _markdown,
    "latex": lambda text: "".join(LATEX.get(character, character) for character in text),
    "csv": _csv,
    "html": html.escape,
}


def safe(text: object, medium: str) -> str:
    """``text`` in one line that ``medium`` shows as it is: ``terminal``, ``markdown``, ``latex``, ``csv``, ``html``.

    A CSV cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return MEDIA[medium](visible(text))


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` as standard JSON; a NaN or an infinity, which it has no word for, is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def first_line(error: BaseException) -> str:
    """The first line of the message of ``error``, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def counted(number: int, noun: str, ending: str = "s") -> str:
    """``1 epoch``, ``1,200 epochs``: ``number`` with ``noun``, which gets ``ending`` unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def shown(value: Any) -> str:
    """``value`` for a message, in up to 40 characters."""
    if isinstance(value, str | int | float | bool | None):
        try:
            text = repr(value)
        except ValueError:  # an int of thousands of digits
            return "a huge number"
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"a {type(value).__name__}"
