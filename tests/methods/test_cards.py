"""The card at the head of each method's page says what the code says, and the code what the counter counts."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mixskd.config import convert
from mixskd.methods import METHODS
from mixskd.methods.cards import NETWORKS
from mixskd.reporting.listing import methods
from tests.methods.counting import count

ROOT = Path(__file__).parents[2]
PARTS = ("Use it when", "Avoid it when", "Cost", "Goes with", "Try first", "Measured")
# Backbone, classes and pixels of what the code calls by these names.
MEASURED = dict(
    zip(
        NETWORKS,
        [("wrn_16_2", 100, 32), ("resnet18", 17, 128), ("resnet50", 100, 224), ("timm/tf_efficientnet_lite0", 17, 128)],
        strict=True,
    )
)


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
def test_card_matches_code(name: str) -> None:
    about, card = METHODS[name].about, card_of(name)
    assert about is not None
    assert card["summary"] == about.summary
    assert card["Cost"] == about.cost


@pytest.mark.parametrize("name", METHODS)
def test_card_has_all_rows(name: str) -> None:
    card = card_of(name)
    assert tuple(card) == ("summary", *PARTS)
    assert all(len(row) > 5 for row in card.values())
    if name == METHODS[name].__module__.rpartition(".")[2]:  # a variant has its card further down its page
        assert page_of(name).splitlines()[2].startswith(f"| `{name}` | ")


@pytest.mark.parametrize("name", METHODS)
def test_card_names_existing_settings(name: str) -> None:
    found = re.findall(
        r"`(\S+?)` (\w[\w.]*)(?:[^;`]*?\bthen (\w[\w.]*))?", card_of(name)["Try first"].replace(", for", ";")
    )
    settings = [(option, value) for option, *values in found for value in values if value]
    assert len(settings) >= 2, f"{name}: two settings with values, not {settings}"
    options = {field.name: field for field in fields(METHODS[name].Config)}
    for option, value in settings:
        if option.startswith("--"):
            continue
        assert option in options, f"{name} has no option {option}"
        METHODS[name].Config(**{option: convert(value, type(options[option].default), option)})
    for option, first, _ in found:
        if not option.startswith("--"):
            assert convert(first, type(options[option].default), option) == options[option].default


@pytest.mark.parametrize("name", METHODS)
def test_stated_cost_equals_counted_cost(name: str) -> None:
    about = METHODS[name].about
    assert about is not None
    check(about.compute, about.maps, name, "WRN-16-2 at 32 px")


@pytest.mark.parametrize("network", NETWORKS[1:])
@pytest.mark.parametrize("name", ["mixskd", "dks", "frskd", "regmixup"])
def test_stated_cost_on_other_networks_equals_counted_cost(name: str, network: str) -> None:
    about, index = METHODS[name].about, NETWORKS.index(network) - 1
    assert about is not None
    maps = about.other_maps[index] if about.other_maps else about.maps
    compute = about.other_compute[index] if about.other_compute else about.compute
    check(compute, maps, name, network)


@pytest.mark.parametrize(
    ("name", "same"), [("byot", "dks"), ("deep_supervision", "dks"), ("frskd_mixup", "frskd"), ("cskd_mixup", "cskd")]
)
def test_methods_with_same_parts_cost_the_same(name: str, same: str) -> None:
    one, other = METHODS[name].about, METHODS[same].about
    assert one is not None
    assert other is not None
    assert replace(one, summary="") == replace(other, summary="")


def check(compute: float, maps: float, name: str, network: str) -> None:
    if network.startswith("EfficientNet"):
        pytest.importorskip("timm")
    mine, plain = (count(method, *MEASURED[network]) for method in (name, "baseline"))
    assert compute == pytest.approx(mine.operations / plain.operations, abs=0.02)
    assert maps == pytest.approx(mine.kept / plain.kept, abs=0.02)


def test_listing_shows_summary_and_cost() -> None:
    rows = {row["method"]: row for row in methods()}
    assert rows["mixskd"]["in short"] == METHODS["mixskd"].about.summary  # type: ignore[union-attr]
    assert rows["cskd"]["cost"].startswith("operations: 1.33 times the baseline; 2 images go through the network")
    assert "4 times the baseline on WRN-16-2 (4 to 5.9 times by network)" in rows["mixskd"]["cost"]
    assert rows["mixup"]["cost"].startswith("operations: the same as the baseline; ")
