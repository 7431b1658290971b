"""Every accuracy in README and docs is one that a run in results/ reached, or one that a paper printed."""

from __future__ import annotations

import csv
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
    text = (ROOT / "src/mixskd/reporting/published/classification.json").read_text()
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


def results_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Top-1 and the number of seeds of every method in a folder's table, as printed there."""
    text = (folder / "table.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines()]
    head = rows[0]
    top1, seeds = head.index("top-1 (%)"), head.index("seeds")
    until = next(i for i, row in enumerate(rows) if row == [""])
    return {row[0]: (row[top1], str(len(row[seeds].split(",")))) for row in rows[2:until]}


def single_results(folder: Path) -> dict[str, set[str]]:
    """Top-1 of every run of a folder, by method."""
    found: dict[str, set[str]] = defaultdict(set)
    with (folder / "runs.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["method"]].add(f"{float(row['top-1 (%)']):.2f}")
    return found


LINK = re.compile(r"\]\(((?:\.\./)+results/[^)]*)/(?:table\.md|runs\.csv)\)")
# ``| `cskd`, what it is | 50.88 ± 0.64 | 3 | 1.33 |`` and, in a sentence, ```cskd` has 51.06``.
TABLE_ROW = re.compile(r"^\| `([\w.+]+)`[^|]*\| (\d{2}\.\d{2}(?: ± \d+\.\d{2})?) \| (\d+) \|", flags=re.MULTILINE)
SENTENCE = re.compile(r"`([\w.+]+)` (?:has |had |reached |reaches )?(\d{2}\.\d{2})")


def wrong_rows(text: str, place: Path) -> list[str]:
    """The rows and sentences of each section of ``text`` that differ from the table of results that it links first."""
    wrong = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        if (link := LINK.search(section)) is None:
            continue
        folder = (place / link[1]).resolve()
        table, single = results_of(folder), single_results(folder)
        for name, top1, seeds in TABLE_ROW.findall(section):
            if table.get(name) != (top1, seeds):
                wrong.append(f"{name} has {table.get(name)}, not {top1} with {seeds} seeds")
        for name, top1 in SENTENCE.findall(TABLE_ROW.sub("", section)):
            if top1 not in single[name]:
                wrong.append(f"{name} has {single[name]}, not {top1}")
    return wrong


def test_each_row_of_the_page_that_chooses_is_that_of_its_method() -> None:
    page = ROOT / "docs/choose.md"
    text = page.read_text(encoding="utf-8")
    tables = [section for section in text.split("\n## ") if LINK.search(section)]
    numbers = sum(len(FIGURE.findall(section)) for section in tables)
    compared = sum(len(TABLE_ROW.findall(s)) + len(SENTENCE.findall(TABLE_ROW.sub("", s))) for s in tables)
    assert compared == numbers, "a number of a section with a table of results names no method"
    assert wrong_rows(text, page.parent) == []


def test_a_wrong_row_is_found() -> None:
    page = ROOT / "docs/choose.md"
    text = page.read_text(encoding="utf-8")
    swapped = text.replace("| `cskd` | 50.88 ± 0.64 | 3 |", "| `cskd` | 50.37 ± 0.13 | 3 |")  # those of mixskd
    seeds = text.replace("| `frskd` | 52.96 | 1 |", "| `frskd` | 52.96 | 3 |")
    said = text.replace("`cskd` 51.06", "`cskd` 50.51")
    for changed, name in ((swapped, "cskd"), (seeds, "frskd"), (said, "cskd")):
        assert changed != text
        found = wrong_rows(changed, page.parent)
        assert len(found) == 1
        assert found[0].startswith(f"{name} has ")


CARD = re.compile(r"^\| `(\w+)` \| .*\n\|---\|---\|\n(?:\| .*\n)*?\| Measured \| (.*) \|$", flags=re.MULTILINE)


def test_what_a_card_measured_is_that_of_its_method() -> None:
    compared = 0
    for page in sorted((ROOT / "docs/methods").glob("*.md")):
        for name, measured in CARD.findall(page.read_text(encoding="utf-8")):
            if measured == "not yet":
                assert not list((ROOT / "results").glob(f"*/{name}-*")), f"{name} has runs"
                continue
            link = LINK.search(measured)
            assert link
            table = results_of((page.parent / link[1]).resolve())
            first, seeds = re.match(r"(\d{2}\.\d{2}(?: ± \d\.\d{2})?) %", measured), "three seeds" in measured
            assert first
            assert table[name] == (first[1], "3" if seeds else "1"), name
            compared += 1
    assert compared >= 20


def column(pattern: str, name: str, heads: int = 1) -> list[float]:
    """The last value of a column of metrics.csv in each run of results/, divided by the number of heads."""
    values = []
    for path in sorted((ROOT / "results").glob(f"{pattern}/metrics.csv")):
        with path.open(encoding="utf-8") as file:
            values.append(float(list(csv.DictReader(file))[-1][name]) / heads)
    assert values, f"no run {pattern}"
    return values


def span(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def losses_of_mixskd() -> list[str]:
    """What MixSKD's page says about losses, with the numbers of the runs."""
    wrn, resnet = 3, 4  # heads: the branches and the backbone
    grid, small, large = "cifar100_100", "flowers17_32", "flowers17_128"
    with (ROOT / f"results/{large}/mixskd-resnet18-seed0/metrics.csv").open(encoding="utf-8") as file:
        feature = [float(row["train_feature"]) for row in csv.DictReader(file)]
    rows = [
        f"| {top1:.2f} | {column(run, 'test_loss')[0]:.3f} | {column(run, name, heads)[0]:.2f} |"
        for run, name, heads in (
            (f"{large}/baseline-*", "train_loss", 1),
            (f"{large}/baseline_lr0.025-*", "train_loss", 1),
            (f"{large}/mixskd_lr0.025-*", "train_cls", resnet),
            (f"{large}/mixskd_clip5-*", "train_cls", resnet),
        )
        for top1 in column(run, "test_top1")
    ]
    mixskd, cutmix = (column(f"{grid}/{name}-*", "train_cls", wrn) for name in ("mixskd", "mixskd_cutmix"))
    frskd, baseline = column(f"{grid}/frskd-*", "train_cls"), column(f"{grid}/baseline-*seed0", "train_loss")
    tested = [column(f"{grid}/{name}-*", "test_loss") for name in ("mixskd_cutmix", "baseline")]
    return [
        f"is {mixskd[0]:.2f} for MixSKD (mean over its heads), {frskd[0]:.2f} for FRSKD's classifier and "
        f"{baseline[0]:.2f} for the baseline",
        f"({span(tested[0])}; baseline {span(tested[1])})",
        f"is {span(cutmix)} with CutMix and {span(mixskd)} with mixup",
        f"is {span(column(f'{small}/mixskd-*', 'train_cls', wrn))} (mean over its heads), and "
        f"{span(column(f'{small}/baseline-*', 'train_loss'))} for the baseline",
        *rows,
        f"fell from {feature[0]:.2f} to {feature[2]:.3f}",
    ]


def unexplained(text: str) -> tuple[list[str], list[str]]:
    """What the section on measurements of MixSKD's page lacks of its losses, and its decimals that nothing explains."""
    section = " ".join(text.partition("\n## Measured\n")[2].split())
    missing = [said for said in losses_of_mixskd() if said not in section]
    for said in losses_of_mixskd():
        section = section.replace(said, "")
    section = re.sub(r"`[^`]*`|rate 0\.\d+|alpha 0\.\d+", "", FIGURE.sub("", section))
    return missing, re.findall(r"\d+\.\d+", section)


def test_the_losses_of_mixskd_are_those_of_its_runs() -> None:
    text = (ROOT / "docs/methods/mixskd.md").read_text(encoding="utf-8")
    assert unexplained(text) == ([], [])
    for right, wrong in (("1.18 for", "1.28 for"), ("0.88 to 0.004", "0.88 to 0.04"), ("| 0.692 |", "| 0.629 |")):
        assert right in text
        missing, left = unexplained(text.replace(right, wrong))
        assert len(missing) == 1
        assert left


def test_the_times_of_the_readme_are_those_of_the_benchmark() -> None:
    report = json.loads((ROOT / "results/benchmarks/cpu_avx512bf16/cifar_resnet18_released.json").read_text())
    ours, theirs = (report["variants"][name]["step_seconds"] for name in ("default", "released"))
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"the MixSKD step of a ResNet-18 takes {ours:.1f} s; the released code takes {theirs:.1f} s" in text
