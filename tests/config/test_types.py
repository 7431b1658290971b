"""Settings that are examined by their types: ranges, choices, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from msgspec import Meta

from mixskd.config.type_words import described
from mixskd.config.types import BelowOne, Count, NotNegative, Positive, Settings, Share
from mixskd.errors import UserError


@dataclass(frozen=True)
class Oven(Settings, prefix="oven."):
    heat: Positive = 1.0
    share: Share = 0.5
    trays: Count = 1
    mode: Literal["bake", "grill"] = "bake"
    sizes: Annotated[tuple[NotNegative, ...], Meta(max_length=2)] = ()
    rest: BelowOne | None = None


@dataclass(frozen=True)
class Grill(Oven):
    smoke: bool = False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heat": 0.0}, "oven.heat must be above 0, not 0.0"),
        ({"heat": float("nan")}, "oven.heat must be above 0, not nan"),
        ({"heat": "hot"}, "oven.heat must be a number, not 'hot'"),
        ({"heat": float("inf")}, "oven.heat must be finite, not inf"),
        ({"heat": 1e308}, "oven.heat must be at most 1e+15, not 1e+308"),
        ({"heat": None}, "oven.heat has no value; give one, or leave the key out"),
        ({"mode": "\x1b"}, "oven.mode holds a control character: '\\x1b'"),
        ({"share": 1.5}, "oven.share must be from 0 to 1, not 1.5"),
        ({"trays": 0}, "oven.trays must be 1 or above, not 0"),
        ({"trays": 1.5}, "oven.trays must be a whole number, not 1.5"),
        ({"trays": True}, "oven.trays must be a whole number, not True"),
        ({"mode": "gril"}, "oven.mode must be bake or grill, not 'gril'; did you mean 'grill'?"),
        ({"sizes": (1.0, -2.0)}, "oven.sizes must be up to two numbers 0 or above, not [1.0, -2.0]"),
        ({"sizes": (1.0, 2.0, 3.0)}, "oven.sizes must be up to two numbers 0 or above, not [1.0, 2.0, 3.0]"),
        ({"rest": 1.0}, "oven.rest must be 0 or above and below 1, not 1.0"),
        ({"smoke": 2}, "oven.smoke must be true or false, not 2"),
    ],
)
def test_a_value_outside_its_type_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        Grill(**values)
    assert str(refusal.value) == message


def test_text_is_converted_to_the_type_of_its_field() -> None:
    assert Grill("2", "0.1", "3", "grill", "[0, 1]", "none", "True") == Grill(2.0, 0.1, 3, "grill", (0, 1), None, True)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_accepted() -> None:
    oven = Grill(heat=np.float64(2.5), trays=np.int64(3), mode="grill", sizes=(0.0, 1.0), rest=0.0, smoke=True)  # type: ignore[arg-type]
    assert (oven.heat, oven.trays, oven.mode, oven.sizes) == (2.5, 3, "grill", (0.0, 1.0))
    assert Oven(heat=1).heat == 1


def test_types_in_words() -> None:
    assert described(Annotated[float, Meta(gt=0, lt=1)]) == "between 0 and 1"
    assert described(Annotated[int, Meta(ge=1, le=4096)] | None) == "from 1 to 4,096"
    assert described(Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=2)]) == "two numbers above 0"
    assert described(tuple[int, ...]) == "a list of whole numbers"
    assert described(str) == "text"
