"""The one conversion of settings: values of a command line, a file or Python to the types of the fields."""

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from mixskd.config.type_words import NAMES, described, is_choice_or_mapping, is_optional, plain, unpacked, without_none
from mixskd.errors import UserError, nearest
from mixskd.errors.text import shown, visible

LARGEST_INT = 2**63 - 1
LARGEST_FLOAT = 1e15  # sums and products of such numbers are finite
LONGEST_TEXT = 4096
LONGEST_NAME = 255  # bytes; what file systems take


def convert(value: Any, kind: Any, key: str = "") -> Any:
    """``value``, typed or as text, as the type ``kind``; a mapping as a dataclass, which converts its own fields.

    Raises UserError, naming ``key``, for a value of another type or range, and for a key that the dataclass lacks.
    """
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{key} must hold keys, not {shown(value)}")
        prefix, names = f"{key}." if key else "", [field.name for field in dataclasses.fields(kind)]
        arguments: dict[str, Any] = {}
        for raw, given in value.items():
            name = str(raw).replace("-", "_")
            if name not in names:
                close = nearest(prefix + name, [prefix + n for n in names])
                raise UserError(f"unknown key {prefix}{visible(raw)}{close}")
            if name in arguments:
                raise UserError(f"{prefix}{name} is given twice")
            arguments[name] = given
        return kind(**arguments)  # type: ignore[operator]
    if is_optional(kind) and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    base, _ = unpacked(without_none(kind))
    item, parts = base, [value]
    if is_list := typing.get_origin(base) is tuple and value is not None:
        item = unpacked(typing.get_args(base)[0])[0]
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        parts = [value] if isinstance(value, int | float) and not isinstance(value, bool) else value
        if not isinstance(parts, list | tuple):
            raise UserError(f"{key} must be {described(kind)}, not {shown(value)}")
    if is_choice_or_mapping(base) and isinstance(value, str) and value.lstrip().startswith("{"):
        parts = [_mapping(value, key)]
    if any(part is None for part in parts):
        raise UserError(f"{key} has no value; give one, or leave the key out")
    parts = [part.item() if getattr(part, "ndim", None) == 0 else part for part in parts]  # a number of NumPy
    if item is str or (typing.get_origin(item) is typing.Literal and isinstance(typing.get_args(item)[0], str)):
        parts = [_text(part, key) for part in parts]
    value = parts if is_list else parts[0]
    try:
        converted = msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a character
        raise _refusal(value, kind, key) from None
    for number in converted if is_list else converted.values() if isinstance(converted, dict) else (converted,):
        if isinstance(number, float) and math.isnan(number):
            raise UserError(f"{key} must be a number, not nan")
        if isinstance(number, float) and math.isinf(number):
            raise UserError(f"{key} must be finite, not {number}")
        if isinstance(number, int) and abs(number) > LARGEST_INT:
            raise UserError(f"{key} must be at most {LARGEST_INT:,}, not {shown(number)}")
        if isinstance(number, float) and abs(number) > LARGEST_FLOAT:
            raise UserError(f"{key} must be at most {LARGEST_FLOAT:g}, not {number:g}")
    return converted


def _mapping(text: str, key: str) -> dict[str, str]:
    """The mapping that ``text`` is, such as ``{cat: 2, dog: 1}``."""
    pairs = [part.rpartition(":") for part in text.strip("{} ").split(",")]
    if not text.endswith("}") or not all(colon for _, colon, _ in pairs):
        raise UserError(f"{key} is not a mapping such as {{cat: 2, dog: 1}}: {shown(text)}")
    return {name.strip(" \"'"): value.strip() for name, _, value in pairs}


def _text(value: Any, key: str) -> Any:
    """``value`` as text if it is a path, a number, or what YAML makes of a bare ``on`` or ``off``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str | int | float | os.PathLike):
        return value
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UserError(f"{key} holds a control character: {shown(text)}")
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in text.split("/"))
    if len(text) > LONGEST_TEXT or longest > LONGEST_NAME:
        raise UserError(f"{key} is too long: a name has up to {LONGEST_NAME} bytes; it begins {shown(text)}")
    return text


def _refusal(value: Any, kind: Any, key: str) -> UserError:
    """The error for a ``value`` that msgspec refused: the type that it needs, or else the range or the choices."""
    base = without_none(kind)
    simple = plain(base)
    if simple in NAMES and simple is not base and not (simple is float and str(value).lower() == "nan"):
        convert(value, simple, key)  # raises the error of the type or the size
    inner, meta = unpacked(base)
    choices = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else meta.examples or ()
    close = nearest(value, choices) if isinstance(value, str) else ""
    given = value if isinstance(value, list) and len(value) <= 8 else shown(value)
    return UserError(f"{key} must be {described(base)}, not {visible(given)}{close}")
