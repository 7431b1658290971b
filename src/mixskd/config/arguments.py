"""The types of the Python functions' arguments, examined at the call."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

PATH: tuple[type, ...] = (str, os.PathLike)
NUMBER: tuple[type, ...] = (int, float)
FUNCTION: Any = Callable
Function = TypeVar("Function", bound=Callable[..., Any])


class Many:
    """A list, a tuple or the like, of things of ``kinds``."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds


Kind = type | Many
Kinds = Kind | tuple[Kind, ...]


def checked(**kinds: Kinds) -> Callable[[Function], Function]:
    """A function whose arguments are refused, by name, unless they are of ``kinds``; None where it is the default.

    Those that it takes as ``**`` may be None too. True and False are no numbers, and text is no sequence of things.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        optional = {name for name, parameter in signature.parameters.items() if parameter.default is None}
        optional |= kinds.keys() - signature.parameters.keys()
        open_ended = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            given = signature.bind(*arguments, **named).arguments
            given |= given.pop(open_ended, {}) if open_ended else {}
            for name, value in given.items():
                if name in kinds and not (value is None and name in optional):
                    _check(function.__name__, name, value, kinds[name])
            return function(*arguments, **named)

        return wrapped  # type: ignore[return-value]

    return decorate


def _check(function: str, name: str, value: Any, kinds: Kinds) -> None:
    several = kinds if isinstance(kinds, tuple) else (kinds,)
    if any(_fits(value, kind) for kind in several):
        return
    wanted = " or ".join(map(_named, several))
    lists = [kind for kind in several if isinstance(kind, Many)]
    if lists and _is_list(value):
        wrong = next(part for part in value if not any(_fits(part, kind) for kind in lists[0].kinds))
        raise TypeError(f"{function}() needs {name} as {wanted}; one of its values is of {type(wrong).__name__}")
    raise TypeError(f"{function}() needs {name} as {wanted}, not {type(value).__name__}")


def _fits(value: Any, kind: Kind) -> bool:
    if isinstance(kind, Many):
        return _is_list(value) and all(any(_fits(part, one) for one in kind.kinds) for part in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _named(kind: Kind) -> str:
    if isinstance(kind, Many):
        return f"a list of {' or '.join(map(_named, kind.kinds))}"
    return kind.__name__
