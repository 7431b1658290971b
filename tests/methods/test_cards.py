"""The card at the head of each method's page says what the code says, and the code what the counter counts."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from mixskd.config import Experiment, MethodChoice
from mixskd.methods import METHODS
from mixskd.report.cost import count_cost
from mixskd.report.listing import methods

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results" / "cifar100_100" / "table.csv"
PARTS = ("Use it when", "Avoid it when", "Cost", "Goes with", "Try first", "Measured")


def measured_flops() -> dict[str, float]:
    with TABLE.open(encoding="utf-8") as file:
        return {row["method"]: float(row["MFLOPs an original in training"]) for row in csv.DictReader(file)}


def page_of(name: str) -> str:
    file = METHODS[name].__module__.rpartition(".")[2]
    return (ROOT / "docs" / "methods" / f"{file}.md").read_text(encoding="utf-8")


def card_of(name: str) -> dict[str, str]:
    """The rows of the card of ``name``, its first row under the key ``summary``."""
    found = re.search(rf"^\| `{name}` \| (.+) \|\n\|---\|---\|\n((?:\| .+ \|\n)+)", page_of(name), flags=re.MULTILINE)
    assert found, f"the page of {name} has no card"
    rows = (line.strip("| ").split(" | ", 1) for line in found[2].splitlines())
    return {"summary": found[1], **dict(rows)}


@pytest.mark.parametrize("name", METHODS)
def test_page_and_code_agree(name: str) -> None:
    about, card = METHODS[name].about, card_of(name)
    assert about is not None
    assert card["summary"] == about.summary
    assert card["Cost"] == about.cost


@pytest.mark.parametrize("name", METHODS)
def test_a_page_opens_with_its_card(name: str) -> None:
    main = METHODS[name].__module__.rpartition(".")[2]
    if name != main:
        return  # a variant has its card further down, with its cost and what was measured
    lines = page_of(name).splitlines()
    assert lines[2].startswith(f"| `{name}` | ")
    assert tuple(card_of(name)) == ("summary", *PARTS)


@pytest.mark.parametrize("name", METHODS)
def test_the_cost_is_what_is_counted(name: str) -> None:
    about, counted = METHODS[name].about, measured_flops()
    assert about is not None
    flops = counted.get(name)
    if flops is None:  # there is no run of it yet
        experiment = Experiment(backbone="wrn_16_2", method=MethodChoice(name=name))
        flops = count_cost(experiment, 100).training_flops / 1e6
    assert about.compute == pytest.approx(flops / counted["baseline"], abs=0.02)


def test_the_listing_shows_summary_and_cost() -> None:
    rows = {row["method"]: row for row in methods()}
    assert rows["mixskd"]["in short"] == METHODS["mixskd"].about.summary  # type: ignore[union-attr]
    assert rows["cskd"]["cost"].startswith("1.33 times the baseline's operations, 2 images through the network")
