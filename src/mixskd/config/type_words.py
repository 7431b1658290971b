"""Types of settings in words, as in ``above 0``, ``true or false``, ``pad or resized``, for messages and the help."""

import types
import typing
from typing import Annotated, Any

from msgspec import Meta

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 8: "eight"}
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def is_optional(kind: Any) -> bool:
    """Whether None is a value of the type ``kind``."""
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and type(None) in typing.get_args(kind)


def is_choice_or_mapping(kind: Any) -> bool:
    """Whether ``kind`` is a choice of names or a mapping, such as ``Literal["none"] | dict[str, float]``."""
    return not is_optional(kind) and any(typing.get_origin(part) is dict for part in typing.get_args(kind))


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``; any other type as it is."""
    return next(part for part in typing.get_args(kind) if part is not type(None)) if is_optional(kind) else kind


def unpacked(kind: Any) -> tuple[Any, Meta]:
    """A type without its range, and the range."""
    if typing.get_origin(kind) is not Annotated:
        return kind, Meta()
    base, *more = typing.get_args(kind)
    return base, next((part for part in more if isinstance(part, Meta)), Meta())


def plain(kind: Any) -> Any:
    """The type without ranges and choices: ``float`` for ``Positive``, ``str`` for ``Literal["pad", "resized"]``."""
    base, _ = unpacked(kind)
    if typing.get_origin(base) is typing.Literal:
        return type(typing.get_args(base)[0])
    if typing.get_origin(base) is tuple:
        return tuple[plain(typing.get_args(base)[0]), ...]  # type: ignore[misc]
    return base


def described(kind: Any) -> str:
    """The range, the choices or else the name of a type."""
    kind, meta = unpacked(without_none(kind))
    if typing.get_origin(kind) is typing.Literal:
        *first, last = map(str, typing.get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    if typing.get_origin(kind) is tuple:
        return _list(typing.get_args(kind)[0], meta)
    if is_choice_or_mapping(kind):
        return f"{', '.join(typing.get_args(typing.get_args(kind)[0]))} or {{class: number}}"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(described(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is dict:
        return "a mapping"
    return meta.description or range_text(meta) or NAMES.get(kind, str(kind))


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
