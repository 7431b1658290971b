"""The arguments of the Python functions, converted by their annotations at the call as settings are by their types."""

import builtins
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from mixskd.config.type_words import range_text, unpacked
from mixskd.errors.text import visible

Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
    """``function``, which raises a TypeError in one line for an argument that is not of its annotated type.

    Bools are not numbers, strings are not lists, and paths are text. Annotations of a name that the module imports for
    type checking only are not checked.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*arguments, **named).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}() cannot be called like this: {error}") from None
        for name, kind in _kinds(function).items():
            if name in given:
                _check(function.__name__, name, given[name], kind)
        return function(*arguments, **named)

    return wrapped  # type: ignore[return-value]


@functools.cache
def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each parameter but ``**``; Any for a name that is not defined at run time."""

    places = inspect.unwrap(function).__globals__  # type: ignore[attr-defined]

    class Names(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            return places.get(name, getattr(builtins, name, Any))

    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD and p.annotation is not p.empty]
    return {p.name: eval(p.annotation, {}, Names()) if isinstance(p.annotation, str) else p.annotation for p in named}


def _check(function: str, name: str, value: Any, kind: Any) -> None:
    try:
        msgspec.convert(_plain_value(value), _plain_type(kind))
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter for half a character
        wanted = f"{function}() needs {name} as {_in_words(kind)}"
        if (place := re.search(r"`\$\[(\d+)\]", str(error))) and isinstance(value, Sequence):
            wrong = type(value[int(place[1])]).__name__
            raise TypeError(f"{wanted}; one of its values is of {wrong}") from None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        raise TypeError(f"{wanted}, not {visible(repr(value))[:40] if number else type(value).__name__}") from None


def _plain_value(value: Any) -> Any:
    """``value`` in types that msgspec converts: paths as text, sequences as lists, NumPy's numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain_value(part) for part in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _plain_type(kind: Any) -> Any:
    """``kind`` with the types that :func:`_plain_value` gives."""
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return str
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_plain_type, parts))]  # noqa: UP007
    return list[_plain_type(parts[0])] if origin is Sequence else kind  # type: ignore[misc]


def _in_words(kind: Any) -> str:
    """``kind`` in words: ``str``, ``a list of int``, ``str or Path``."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(part) for part in parts if part is not type(None))
    if origin is Annotated:
        base, meta = unpacked(kind)
        return f"{_in_words(base)} {range_text(meta)}".strip()
    if origin is Sequence:
        return f"a list of {_in_words(parts[0])}"
    return "a mapping" if origin is Mapping else getattr(kind, "__name__", str(kind))
