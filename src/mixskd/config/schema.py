"""What a value from a file must look like: small checks that are put together, and refuse with the value's place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mixskd.errors.text import shown, visible

LONGEST_MESSAGE = 400
Check = Callable[[Any, str], None]


class Mismatch(ValueError):
    """A value is not what it must be; the message is one line that names its place."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message)[:LONGEST_MESSAGE])


def integer(low: int = -(2**63), high: int = 2**63 - 1) -> Check:
    """A whole number from ``low`` to ``high``."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Mismatch(f"{where} must be a whole number from {low} to {high}, not {shown(value)}")

    return check


def number(low: float = -math.inf, high: float = math.inf, *, above: float = -math.inf, finite: bool = True) -> Check:
    """A number from ``low`` to ``high`` and more than ``above``; no NaN and no infinity if ``finite``."""

    def check(value: Any, where: str) -> None:
        if type(value) not in (int, float) or (finite and not _is_finite(value)):
            raise Mismatch(f"{where} must be a {'finite ' * finite}number, not {shown(value)}")
        if value < low or value < above or (value == above and above > -math.inf):
            raise Mismatch(f"{where} must be {f'above {above:g}' if above > low else f'{low:g} or above'}, not {value}")
        if value > high:
            raise Mismatch(f"{where} must be {high:g} or below, not {value}")

    return check


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def string(longest: int = 4096) -> Check:
    """Text of 1 to ``longest`` characters."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str):
            raise Mismatch(f"{where} must be text, not {shown(value)}")
        if not 1 <= len(value) <= longest:
            raise Mismatch(f"{where} must have 1 to {longest} characters, not {len(value)}")

    return check


def choice(*choices: str) -> Check:
    """One of ``choices``."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in choices:
            raise Mismatch(f"{where} must be one of {', '.join(filter(None, choices))}, not {shown(value)}")

    return check


def anything(value: Any, where: str) -> None:
    """Any value."""


def optional(item: Check) -> Check:
    """None, or what ``item`` takes."""
    return lambda value, where: None if value is None else item(value, where)


def items(item: Check, shortest: int = 0, longest: int = 2**31) -> Check:
    """A list of ``shortest`` to ``longest`` values that ``item`` takes."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple):
            raise Mismatch(f"{where} must be a list, not {shown(value)}")
        if not shortest <= len(value) <= longest:
            count = str(shortest) if shortest == longest else f"{shortest} to {longest}"
            raise Mismatch(f"{where} must hold {count} values, not {len(value)}")
        for place, part in enumerate(value):
            item(part, f"{where}[{place}]")

    return check


def table(item: Check, key: Check | None = None) -> Check:
    """A mapping of keys that ``key`` takes (text, if it is None) to values that ``item`` takes."""
    key = key or string()

    def check(value: Any, where: str) -> None:
        _check_mapping(value, where)
        for name, part in value.items():
            key(name, f"a key of {where}")
            item(part, f"{where}.{name}")

    return check


def record(needed: Mapping[str, Check], more: Mapping[str, Check] | None = None, *, closed: bool = False) -> Check:
    """A mapping with the keys ``needed`` and perhaps those of ``more``; no others if it is ``closed``."""
    known = {**needed, **(more or {})}

    def check(value: Any, where: str) -> None:
        _check_mapping(value, where)
        if lacking := [key for key in needed if key not in value]:
            raise Mismatch(f"{where or 'it'} lacks {lacking[0]}")
        for name, part in value.items():
            if name in known:
                known[name](part, f"{where}.{name}" if where else name)
            elif closed:
                raise Mismatch(f"{where} holds {shown(name)}, which is not known")

    return check


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise Mismatch(f"{where or 'it'} must hold keys, not {shown(value)}")
