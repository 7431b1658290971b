"""Typed structures for stored files: their types of numbers and texts, one reader, and one-line errors."""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from mixskd.errors.text import visible

LONGEST_MESSAGE = 400
LARGEST = 1e15  # of a number, so that sums and squares of such numbers are finite

Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Amount = Annotated[float, Meta(ge=0, le=LARGEST)]
PositiveNumber = Annotated[float, Meta(gt=0, le=LARGEST)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Numbers = Annotated[list[Number], Meta(min_length=1)]
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Place = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
ShortText = Annotated[str, Meta(min_length=1, max_length=200)]
ThreeNumbers = Annotated[list[Number], Meta(min_length=3, max_length=3)]
ThreePositive = Annotated[list[PositiveNumber], Meta(min_length=3, max_length=3)]

WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a mapping", "null": "null", "NoneType": "null", "list": "a list", "dict": "a mapping",
}  # fmt: skip
RANGES = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
Record = TypeVar("Record")


class Mismatch(ValueError):
    """A stored value is not of its type; the message is one line that names its place."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message)[:LONGEST_MESSAGE])


def read_record(value: Any, kind: type[Record]) -> Record:
    """``value`` (plain values and tensors) as the type ``kind``. Raises Mismatch, naming the place of an error."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Mismatch(_in_words(str(error))) from None
    except RecursionError:
        raise Mismatch("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise Mismatch("it holds half a character (a lone surrogate)") from None


def _in_words(message: str) -> str:
    """A message of msgspec in words: ``rows[0].epoch must be a whole number at least 1``."""
    message, _, at = message.partition(" - at ")
    place = re.sub(r"`(?:key` in `)?\$\.?(.*)`", r"\1", at)
    place = f"a key of {place or 'it'}" if at.startswith("`key`") else place
    if field := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"{place or 'it'} lacks {field[1]}"
    if field := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        return f"{place or 'it'} holds {field[1]}, which is not known"
    if not message.startswith("Expected"):
        return f"{place}: {message}" if place else message
    message = re.sub(r"`([^`]*)`", lambda types: " or ".join(WORDS.get(t, t) for t in types[1].split(" | ")), message)
    message = re.sub(r"([<>]=?) (\S+)", lambda limit: f"{RANGES[limit[1]]} {float(limit[2]):g}", message)
    return f"{place or 'it'} must be{message.removeprefix('Expected').replace(', got', ', not')}"
