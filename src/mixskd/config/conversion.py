"""The one conversion of settings: values of a command line, a file or Python to the types of the fields."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from mixskd.config.type_words import described, is_optional, plain, type_name, unpacked, without_none
from mixskd.errors import UserError, nearest
from mixskd.errors.text import shown, visible

LARGEST_INT = 2**63 - 1
LARGEST_FLOAT = 1e15  # sums and products of such numbers are finite
LONGEST_TEXT = 4096
LONGEST_NAME = 255  # bytes; what file systems take


def convert(value: Any, kind: Any, key: str) -> Any:
    """``value``, typed or as text, as the type ``kind``. Raises UserError, naming ``key``, if it is not of it."""
    value = _prepared(value, kind, key)
    try:
        converted = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise _refusal(value, kind, key) from None
    for number in converted if isinstance(converted, tuple) else (converted,):
        _check_size(number, key)
        if isinstance(number, float) and math.isnan(number):
            raise UserError(f"{key} must be a number, not nan")
    return converted


def build(kind: Any, values: Any, prefix: str = "") -> Any:
    """A dataclass ``kind``, and those within it, from a mapping; each converts its own fields.

    Raises UserError for a key that it does not have, with the nearest one, and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')} must hold keys, not {shown(values)}")
    hints, names = typing.get_type_hints(kind), [field.name for field in dataclasses.fields(kind)]
    arguments: dict[str, Any] = {}
    for raw, value in values.items():
        name = str(raw).replace("-", "_")
        if name not in names:
            raise UserError(f"unknown key {prefix}{visible(raw)}{nearest(prefix + name, [prefix + n for n in names])}")
        if name in arguments:
            raise UserError(f"{prefix}{name} is given twice")
        inner = hints[name]
        arguments[name] = build(inner, value, f"{prefix}{name}.") if dataclasses.is_dataclass(inner) else value
    return kind(**arguments)


def _prepared(value: Any, kind: Any, key: str) -> Any:
    """``value`` in a form that msgspec converts: a list for text with commas, None for the text ``none``."""
    if getattr(value, "ndim", None) == 0:  # a number of NumPy
        value = value.item()
    if is_optional(kind) and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    if value is None:
        raise UserError(f"{key} has no value; give one, or leave the key out")
    base, _ = unpacked(without_none(kind))
    if typing.get_origin(base) is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, list | tuple):
            raise UserError(f"{key} must be {described(kind)}, not {shown(value)}")
        return [_prepared(part, typing.get_args(base)[0], key) for part in value]
    is_text = base is str or (typing.get_origin(base) is typing.Literal and isinstance(typing.get_args(base)[0], str))
    return _text(value, key) if is_text else value


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
    try:
        _check_size(msgspec.convert(value, plain(base), strict=False), key)
        needed = described(base)
    except msgspec.ValidationError:
        needed = type_name(base)
    except UserError as error:
        return error
    choices = typing.get_args(base) if typing.get_origin(base) is typing.Literal else ()
    close = nearest(value, choices) if isinstance(value, str) else ""
    given = value if isinstance(value, list) and len(value) <= 8 else shown(value)
    return UserError(f"{key} must be {needed}, not {visible(given)}{close}")


def _check_size(number: Any, key: str) -> None:
    """Raises UserError for a number that is infinite, or beyond what can be computed with."""
    if isinstance(number, float) and math.isinf(number):
        raise UserError(f"{key} must be finite, not {number}")
    if isinstance(number, int) and abs(number) > LARGEST_INT:
        raise UserError(f"{key} must be at most {LARGEST_INT:,}, not {shown(number)}")
    if isinstance(number, float) and abs(number) > LARGEST_FLOAT:
        raise UserError(f"{key} must be at most {LARGEST_FLOAT:g}, not {number:g}")
