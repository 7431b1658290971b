"""Values from a command line, a file or Python as the fields of a dataclass, each examined where it enters."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mixskd.config.schema import shown
from mixskd.errors import UserError, nearest
from mixskd.errors.text import visible

NAMES = {bool: "true or false", int: "a whole number", float: "a number"}
LARGEST_INT = 2**63 - 1
LONGEST_TEXT = 4096
LONGEST_NAME = 255  # bytes; what file systems take


def convert(value: Any, kind: Any, key: str) -> Any:
    """``value``, typed or as text from a command line, as the type ``kind``. Raises UserError if it is none."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        return convert(value, inner[0], key)
    if value is None:
        raise UserError(f"{key} has no value; give one, or leave the key out")
    if origin is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        if isinstance(value, int | float):
            value = [value]
        if not isinstance(value, Sequence):
            raise UserError(f"{key} must be a list, not {shown(value)}")
        return tuple(convert(part, typing.get_args(kind)[0], key) for part in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{key} must hold keys, not {shown(value)}")
        return dict(value)
    if origin is typing.Literal:  # which of them it may be, the settings themselves say
        kind = type(typing.get_args(kind)[0])
    if kind not in NAMES:
        return _text(value, key)
    try:
        number = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise UserError(f"{key} must be {NAMES[kind]}, not {shown(value)}") from None
    if math.isinf(number):
        raise UserError(f"{key} must be finite, not {value}")
    if kind is int and abs(number) > LARGEST_INT:
        raise UserError(f"{key} must be at most {LARGEST_INT:,}, not {shown(value)}")
    return number


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool):  # YAML takes a bare on or off for one
        return "on" if value else "off"
    if not isinstance(value, str | int | float | os.PathLike):
        raise UserError(f"{key} must be text, not {shown(value)}")
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UserError(f"{key} holds a control character: {shown(text)}")
    if len(text) > LONGEST_TEXT or any(
        len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in text.split("/")
    ):
        raise UserError(f"{key} is too long: a name has up to {LONGEST_NAME} bytes; it begins {shown(text)}")
    return text


def build(kind: Any, values: Any, prefix: str = "") -> Any:
    """A dataclass ``kind`` from typed or textual ``values``. Raises UserError naming the nearest key or the type."""
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')} must hold keys, not {shown(values)}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    arguments: dict[str, Any] = {}
    for raw, value in values.items():
        name = str(raw).replace("-", "_")
        if name not in names:
            raise UserError(f"unknown key {prefix}{visible(raw)}{nearest(prefix + name, [prefix + n for n in names])}")
        if name in arguments:
            raise UserError(f"{prefix}{name} is given twice")
        hint = hints[name]
        key = f"{prefix}{name}"
        arguments[name] = build(hint, value, f"{key}.") if dataclasses.is_dataclass(hint) else convert(value, hint, key)
    built = kind(**arguments)
    for name, value in arguments.items():  # what the dataclass itself has not refused in its own words
        parts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(part, float) and math.isnan(part) for part in parts):
            raise UserError(f"{prefix}{name} must be a number, not nan")
    return built
