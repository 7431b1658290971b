"""Settings whose choices and ranges are part of their types; msgspec examines them whenever settings are made.

It imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from mixskd.config.schema import shown
from mixskd.errors import UserError, nearest

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
WholeNumber = Annotated[int, Meta(ge=0)]

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}


class Settings:
    """The base of a dataclass of settings: its fields are held to their types, ``Literal`` and ``Annotated`` included.

    ``prefix`` stands before the names in messages. Raises UserError for a value that its type refuses.
    """

    prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str | None = None) -> None:
        if prefix is not None:
            cls.prefix = prefix

    def __post_init__(self) -> None:
        for name, kind in types_of(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            try:
                msgspec.convert(value.item() if hasattr(value, "item") else value, kind)  # NumPy's numbers are taken
            except msgspec.ValidationError:
                raise refusal(value, kind, f"{self.prefix}{name}") from None


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """The type of each field of a dataclass, as written; other dataclasses within it are left out."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in names if not dataclasses.is_dataclass(hints[name])}


def refusal(value: Any, kind: Any, key: str) -> UserError:
    """The error for a ``value`` of ``key`` that is not of the type ``kind``."""
    choices = typing.get_args(without_none(kind)) if typing.get_origin(without_none(kind)) is typing.Literal else ()
    close = nearest(value, choices) if isinstance(value, str) else ""
    given = list(value) if isinstance(value, tuple) and len(value) <= 8 else shown(value)
    return UserError(f"{key} must be {described(kind)}, not {given}{close}")


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``; any other type as it is."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def described(kind: Any) -> str:
    """A type for a person, as in ``above 0``, ``true or false``, ``pad or resized``."""
    kind, meta = unpacked(without_none(kind))
    if typing.get_origin(kind) is typing.Literal:
        *first, last = map(str, typing.get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    if typing.get_origin(kind) is tuple:
        return _list(typing.get_args(kind)[0], meta)
    name = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))
    return range_text(meta) or name


def _list(item: Any, meta: Meta) -> str:
    base, inner = unpacked(item)
    what = " ".join(filter(None, ({int: "whole numbers", str: "names"}.get(base, "numbers"), range_text(inner))))
    low, high = meta.min_length or 0, meta.max_length
    if low == high:
        return f"{COUNTS[low]} {what}"
    if high is not None:
        return f"up to {COUNTS[high]} {what}"
    return f"one or more {what}" if low else f"a list of {what}"


def range_text(meta: Meta) -> str:
    """The range of a number, as in ``above 0``, ``from 1 to 4,096``; empty if it has none."""
    low = meta.gt if meta.gt is not None else meta.ge
    high = meta.lt if meta.lt is not None else meta.le
    if meta.ge is not None and meta.le is not None:
        return f"from {meta.ge:,} to {meta.le:,}"
    if meta.gt is not None and meta.lt is not None:
        return f"between {meta.gt:,} and {meta.lt:,}"
    parts = []
    if low is not None:
        parts.append(f"above {low:,}" if meta.gt is not None else f"{low:,} or above")
    if high is not None:
        parts.append(f"below {high:,}" if meta.lt is not None else f"at most {high:,}")
    return " and ".join(parts)


def unpacked(kind: Any) -> tuple[Any, Meta]:
    """A type without its range, and the range."""
    if typing.get_origin(kind) is not Annotated:
        return kind, Meta()
    base, *more = typing.get_args(kind)
    return base, next((part for part in more if isinstance(part, Meta)), Meta())
