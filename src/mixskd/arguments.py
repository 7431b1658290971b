"""The types of the Python functions' arguments, examined at the call."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

PATH: tuple[type, ...] = (str, os.PathLike)
Function = TypeVar("Function", bound=Callable[..., Any])


def checked(**kinds: type | tuple[type, ...]) -> Callable[[Function], Function]:
    """A function whose arguments are refused, by name, unless they are of ``kinds``; None where it is the default.

    True and False are no numbers, and text is no sequence of things.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            for name, value in signature.bind(*arguments, **named).arguments.items():
                if name in kinds and not (value is None and signature.parameters[name].default is None):
                    _check(function.__name__, name, value, kinds[name])
            return function(*arguments, **named)

        return wrapped  # type: ignore[return-value]

    return decorate


def _check(function: str, name: str, value: Any, kinds: type | tuple[type, ...]) -> None:
    several = kinds if isinstance(kinds, tuple) else (kinds,)
    wrong = isinstance(value, bool) and bool not in several
    wrong |= isinstance(value, str | bytes) and str not in several
    if wrong or not isinstance(value, several):
        wanted = " or ".join(kind.__name__ for kind in several)
        raise TypeError(f"{function}() needs {name} as {wanted}, not {type(value).__name__}")
