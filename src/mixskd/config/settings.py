"""Every setting of an experiment with its type, default and meaning, read from the dataclasses. It imports no torch.

``python -m mixskd.config.settings`` prints docs/settings.md.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from mixskd.config import DataConfig, Experiment, MethodChoice, OptimConfig, RunConfig
from mixskd.config.type_words import NAMES, described, is_choice_or_mapping, range_text, unpacked, without_none
from mixskd.config.types import types_of

GROUPS: dict[str, tuple[str, type]] = {
    "": ("What is trained", Experiment),
    "data": ("Data", DataConfig),
    "optim": ("Optimizer and learning rate", OptimConfig),
    "run": ("Run", RunConfig),
}


WIDTH = 92  # of a line of the help


@dataclass(frozen=True)
class Setting:
    """A setting: its dotted ``key``, the text of its ``type`` and ``default``, and its ``meaning``."""

    key: str
    type: str
    default: str
    meaning: str

    @property
    def flag(self) -> str:
        """As it is written on a command line."""
        return f"--{self.key.replace('_', '-')}"


def meaning_of(key: str) -> str:
    """The meaning of the setting ``key``, such as ``run.epochs``."""
    group, _, name = key.rpartition(".")
    return documented(MethodChoice if group == "method" else GROUPS[group][1])[name].replace("``", "").rstrip(".")


def settings_of(group: str) -> list[Setting]:
    """The settings of one of GROUPS, in order."""
    return fields_of(GROUPS[group][1], f"{group}." if group else "")


def fields_of(kind: type, prefix: str) -> list[Setting]:
    """The fields of a dataclass, in order, with ``prefix`` before their names; a plugin's may lack a meaning."""
    meanings, defaults = documented(kind), {field.name: field.default for field in dataclasses.fields(kind)}
    return [
        Setting(f"{prefix}{name}", type_text(hint), default_text(defaults[name]), meanings.get(name, ""))
        for name, hint in types_of(kind).items()
    ]


def documented(kind: type) -> dict[str, str]:
    """The entries of the Args section of a docstring and of those of its bases, by name, each in one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= _documented(vars(base).get("__doc__") or "")
    return found


def _documented(text: str) -> dict[str, str]:
    _, _, section = inspect.cleandoc(text).partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.startswith("     ") and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return found


def type_text(kind: Any) -> str:
    """A type for a person: ``number above 0``, ``a | b``, ``text``; ``or none`` where it may be left out."""
    if (inner := without_none(kind)) is not kind:
        return f"{type_text(inner)} or none"
    base, meta = unpacked(kind)
    if typing.get_origin(base) is typing.Literal:
        return " | ".join(map(str, typing.get_args(base)))
    if typing.get_origin(base) is tuple or is_choice_or_mapping(base):
        return described(kind)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return " | ".join(type_text(part) for part in typing.get_args(base))
    return f"{NAMES.get(base, str(base)).removeprefix('a ')} {range_text(meta)}".strip()


def default_text(value: Any) -> str:
    """A default as it would be given."""
    if value is None or value is MISSING or value == "" or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(f"{part:.4g}" if isinstance(part, float) else str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def help_text() -> str:
    """All settings by group, for ``--help``."""
    return "\n".join(section(title, settings_of(group)) for group, (title, _) in GROUPS.items())


def section(title: str, settings: Sequence[Setting]) -> str:
    """A part of ``--help``: each of the ``settings`` under ``title``."""
    lines = [f"{title}:"]
    for setting in settings:
        lines.append(f"  {setting.flag}  ({setting.type}; default {setting.default})")
        lines += [f"      {line}" for line in wrapped(setting.meaning.replace("``", ""), WIDTH)]
    return "\n".join([*lines, ""])


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` characters."""
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def page() -> str:
    """docs/settings.md."""
    parts = [
        "# Settings\n\nEvery setting has a flag with its dotted name, such as `--optim.lr 0.05`. It has the same name "
        "in a configuration file. This page is made from the code by `python -m mixskd.config.settings`.\n"
    ]
    for group, (title, _) in GROUPS.items():
        parts.append(f"\n## {title}\n\n| setting | type | default | meaning |\n|---|---|---|---|\n")
        for setting in settings_of(group):
            cells = [f"`{setting.key}`", setting.type, f"`{setting.default}`", setting.meaning.replace("``", "`")]
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    parts.append(
        "\nThe hyper-parameters of each method are on [its page](methods/index.md). "
        "`mixskd train --help --method mixskd` shows those of MixSKD. The flags are `--method.NAME`.\n"
    )
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
