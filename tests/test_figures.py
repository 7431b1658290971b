"""Every accuracy in README and docs is one that a run in results/ reached, or one that a paper printed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIGURE = re.compile(r"(?<![\w.,])(\d{2}\.\d{2})(?: ± (\d+\.\d{2}))?(?![\w.]*\d)")


# What pages quote from the authors themselves, without a run of ours.
QUOTED = {"docs/methods/pskd.md": {"20.82", "79.15"}}


def text_of(page: Path) -> str:
    """The page without its code and its spans of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text).replace(" ±\n", " ± ")


def reached() -> tuple[set[str], set[tuple[str, str]]]:
    """Top-1, mIoU or AP of every run, last epoch and best, and mean and sample deviation of every group of seeds."""
    single: set[str] = set()
    groups: dict[str, list[float]] = defaultdict(list)
    for path in (ROOT / "results").rglob("summary.json"):
        summary = json.loads(path.read_text())
        values = list(last_and_best(summary))
        if not values:  # the summary of something else than a run
            continue
        single |= {f"{value:.2f}" for value in values}
        name = re.sub(r"-seed\d+$", "", str(path.parent))
        groups[name].append(values[0])
    pairs = {(f"{mean(v):.2f}", f"{stdev(v):.2f}") for v in groups.values() if len(v) > 1}
    return single | {a for a, _ in pairs}, pairs


def last_and_best(summary: dict[str, Any]) -> Iterator[float]:
    for scores in summary.get("scores", {}).values():
        yield from (scores[name] for name in ("top1", "miou", "ap") if name in scores)
    for key in ("last", "best", "best_on_test"):
        if "top1" in summary.get(key, {}):
            yield summary[key]["top1"]


def printed() -> set[str]:
    """The figures of the papers, as the package holds them."""
    text = (ROOT / "src/mixskd/report/published.json").read_text()
    return {f"{float(number):.2f}" for number in re.findall(r"\d+\.?\d*", text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_accuracy_was_reached_by_a_run(page: Path) -> None:
    single, pairs = reached()
    known = single | printed() | QUOTED.get(str(page.relative_to(ROOT)), set())
    for value, deviation in FIGURE.findall(text_of(page)):
        if deviation:
            assert (value, deviation) in pairs or value in printed(), f"{value} ± {deviation} has no runs"
        else:
            assert value in known, f"{value} has no run"


def test_a_figure_without_a_run_is_found() -> None:
    single, pairs = reached()
    assert "49.27" in single
    assert ("49.27", "0.88") in pairs
    assert FIGURE.findall("with 99.13 ± 0.07 % or 12.34, not 1.5 or v12.34.5") == [("99.13", "0.07"), ("12.34", "")]


def test_the_times_of_the_readme_are_those_of_the_benchmark() -> None:
    report = json.loads((ROOT / "results/benchmarks/cpu_avx512bf16/cifar_resnet18_released.json").read_text())
    ours, theirs = (report["variants"][name]["step_seconds"] for name in ("default", "released"))
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"the MixSKD step of a ResNet-18 takes {ours:.1f} s; the released code takes {theirs:.1f} s" in text
