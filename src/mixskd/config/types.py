"""``Settings``, the base of every dataclass of settings, and the ranges that are part of its fields' types.

It imports no torch.
"""

import dataclasses
import functools
import typing
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from mixskd.config.conversion import convert

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
WholeNumber = Annotated[int, Meta(ge=0)]


class Settings:
    """The base of a frozen dataclass of settings: each field is converted to its type when the dataclass is made.

    Values may be typed or text (``"0.1"``, ``"1,2"``, ``"none"``). ``prefix`` stands before the names in messages.
    Raises UserError for a value that its type refuses.
    """

    prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str | None = None) -> None:
        if prefix is not None:
            cls.prefix = prefix

    def __post_init__(self) -> None:
        for name, kind in _types(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, convert(getattr(self, name), kind, f"{self.prefix}{name}"))


@functools.cache
def _types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def types_of(kind: type) -> dict[str, Any]:
    """The type of each field of a dataclass, as written; fields that are dataclasses are left out."""
    return {name: found for name, found in _types(kind).items() if not dataclasses.is_dataclass(found)}
