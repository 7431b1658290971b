"""Every accuracy in README and docs is that of the run that the page links, or one that a paper printed."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIGURE = re.compile(r"(?<![\w.,])(\d{2}\.\d{2})(?: ± (\d+\.\d{2}))?(?![\w.]*\d)")
RESULTS = re.compile(r"results/(\w+)")
PUBLISHED = re.compile(r"paper|README|[Pp]ublished|reports|maintainers")
NAMED = re.compile(r"`?([A-Za-z][\w+-]*)`? (?:has |had |reached |reaches )?$")
# Names in tables that are not those of the runs.
ALSO_CALLED = {"none": "baseline", "nothing": "scratch", "mixskd with cutmix": "mixskd_cutmix"}
BACKBONES = {"WRN-16-2": "wrn_16_2", "CIFAR ResNet-18": "cifar_resnet18"}
# What pages quote from authors and no table of the package holds.
QUOTED = {"docs/methods/pskd.md": {"20.82", "79.15"}}


@dataclass(frozen=True)
class Arm:
    """The runs of one setting: the scores of the deployed weights, and with ``others`` those of the best epochs."""

    deployed: frozenset[str]
    others: frozenset[str]
    mean: tuple[str, str] | None
    seeds: int

    def has(self, value: str, deviation: str, *, strict: bool = False) -> bool:
        """Whether the runs have this score; ``strict`` takes the mean of several runs, or the deployed score of one."""
        if deviation:
            return self.mean == (value, deviation)
        if strict:
            return self.mean is None and value in self.deployed
        return value in self.deployed | self.others or (self.mean is not None and value == self.mean[0])


@cache
def arms(folder: str) -> dict[str, Arm]:
    """The settings in ``results/folder`` by the name of their runs without the seed; empty if it has no runs."""
    values: dict[str, list[list[float]]] = defaultdict(list)
    for path in sorted((ROOT / "results" / folder).glob("*/summary.json")):
        if found := list(scores(json.loads(path.read_text()))):
            values[re.sub(r"(-from\d+)?-seed\d+$", "", path.parent.name)].append(found)
    table = ROOT / "results" / folder / "table.json"  # of benchmarks/tune_against_grid.py
    searches = json.loads(table.read_text()) if table.exists() else []
    return {
        row["what"]: Arm(frozenset(f"{row[split]:.2f}" for split in ("val", "test")), frozenset(), None, 1)
        for row in searches
    } | {
        name: Arm(
            frozenset(f"{run[0]:.2f}" for run in runs),
            frozenset(f"{value:.2f}" for run in runs for value in run[1:]),
            (f"{mean(r[0] for r in runs):.2f}", f"{stdev(r[0] for r in runs):.2f}") if len(runs) > 1 else None,
            len(runs),
        )
        for name, runs in values.items()
    }


def scores(summary: dict[str, Any]) -> Iterator[float]:
    """Top-1, mIoU or AP of a run: of the deployed weights first, then of its last and best epoch."""
    splits = summary.get("scores", {})
    for split in sorted(splits, key=lambda name: name != "test"):
        yield from (splits[split][name] for name in ("top1", "miou", "ap") if name in splits[split])
    for key in ("last", "best", "best_on_test"):
        if "top1" in summary.get(key, {}):
            yield summary[key]["top1"]


@cache
def printed() -> list[dict[str, Any]]:
    """The rows of the papers' tables, as the package holds them."""
    folder = ROOT / "src/mixskd/reporting/published"
    return [row for name in ("classification", "transfer") for row in json.loads((folder / f"{name}.json").read_text())]


@cache
def printed_figures() -> frozenset[str]:
    return frozenset(f"{float(n):.2f}" for n in re.findall(r"\d+\.?\d*", json.dumps(printed())))


def sections(text: str) -> list[str]:
    """The text in parts that begin with a heading, without blocks of code; lines keep their numbers."""
    text = re.sub(r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return re.split(r"^(?=#)", text.replace(" ±\n", " ± "), flags=re.MULTILINE)


def normalised(cell: str) -> str:
    """The name in a cell: its span of code, else its words up to a comma or bracket."""
    if code := re.match(r"\W*`([\w.+]+)`", cell):
        return code[1]
    name = re.split(r"[,(]", cell)[0].strip().lower()
    return ALSO_CALLED.get(name, name)


def named(name: str, folder: str, *, exact: bool = False) -> list[Arm]:
    """The settings of ``folder`` whose names begin with ``name``, or are ``exact``ly that."""
    found = arms(folder).items()
    return [arm for key, arm in found if name and (key.split("-")[0] == name if exact else key.startswith(name))]


def wrong_figures(section: str, linked_before: str = "") -> list[str]:
    """The figures of a section that are not those of the run that it names, in the results that it links.

    A table is about the results that are linked nearest: in its row, else last before it, one for each column where the
    paragraph above it links several. A sentence is about any results that its section links. Without a link the section
    is about ``linked_before``.
    """
    wrong: list[str] = []
    folders = [name for name in RESULTS.findall(section) if arms(name)] or ([linked_before] if linked_before else [])
    links = list[str]()
    for block in re.split(r"\n\n+", section):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        text = "\n".join(line for line in block.splitlines() if not line.startswith("|"))
        if found := [name for name in RESULTS.findall(text) if arms(name)]:
            links = found
        wrong += wrong_in_sentences(text, folders)
        if rows:
            head = cells_of(rows[0])
            for row in rows[2:]:
                own = [name for name in RESULTS.findall(row) if arms(name)]
                wrong += wrong_in_row(cells_of(row), head, own or links or folders, bool(own))
    return wrong


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def wrong_in_row(cells: list[str], head: list[str], folders: list[str], own: bool) -> list[str]:
    wrong = []
    for column, cell in enumerate(cells):
        for match in FIGURE.finditer(cell):
            value, deviation = match.groups(default="")
            if not folders:  # a table of a paper
                wrong += [] if is_printed(cells[0], head[column], value, deviation) else [f"{match[0]} is not printed"]
                continue
            if own or column == 0:
                wrong += wrong_in_sentences(cell, folders, only=match[0])
                continue
            several = len(folders) == len(head) - 1
            folder = folders[column - 1] if several else folders[-1]
            strict = "seeds" in head or FIGURE.fullmatch(cells[0]) is not None
            name = next((n for n in map(normalised, (cells[0], head[column])) if named(n, folder)), "")
            known = named(name, folder, exact=strict)
            if PUBLISHED.search(cell) and value in printed_figures():
                continue
            if not any(arm.has(value, deviation, strict=strict) for arm in known):
                wrong.append(f"{cells[0]}, {head[column]}: {match[0]} is not in results/{folder}")
            if "seeds" in head and known and cells[head.index("seeds")] != str(known[0].seeds):
                wrong.append(f"{cells[0]} has {known[0].seeds} seeds in results/{folder}")
    return wrong


def is_printed(row: str, column: str, value: str, deviation: str) -> bool:
    """Whether a paper prints this value; with the row's method or policy, if the column names a backbone."""
    backbone, name = BACKBONES.get(column), normalised(row)
    if backbone is None:
        return value in printed_figures()
    return any(
        (f"{r['top1']:.2f}", f"{r['std']:.2f}" if r["std"] else "") == (value, deviation)
        for r in printed()
        if r.get("backbone") == backbone and r["data"] == "cifar100" and "top1" in r and not r.get("options")
        if name in ((r["method"],) if r["augment"] == "none" else (r["augment"],))
    )


def wrong_in_sentences(text: str, folders: list[str], only: str = "") -> list[str]:
    wrong = []
    for match in FIGURE.finditer(text := text.replace("\n", " ")):
        value, deviation = match.groups(default="")
        if (only and match[0] != only) or text[: match.start()].count("`") % 2:
            continue
        before = NAMED.search(text[: match.start()])
        name = before[1].lower() if before else ""
        known = [arm for folder in folders for arm in named(name, folder)] if len(name) > 3 else []
        known = known or [arm for folder in folders for arm in arms(folder).values()]
        if any(arm.has(value, deviation) for arm in known) or (PUBLISHED.search(text) and value in printed_figures()):
            continue
        wrong.append(f"{name} {match[0]} is not in results/ {', '.join(folders)}")
    return wrong


def wrong_in_page(text: str, quoted: set[str]) -> list[str]:
    wrong, before = [], ""
    for section in sections(text):
        found = [name for name in RESULTS.findall(section) if arms(name)]
        about_papers = "Published values" in section and not found
        wrong += wrong_figures(section, "" if about_papers else before)
        before = found[0] if found else before
    return [one for one in wrong if not any(value in one for value in quoted)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_figure_is_that_of_the_run_that_its_page_links(page: Path) -> None:
    quoted = QUOTED.get(str(page.relative_to(ROOT)), set())
    assert wrong_in_page(page.read_text(encoding="utf-8"), quoted) == []


@pytest.mark.parametrize("page", ["README.md", "docs/choose.md"])
def test_every_changed_digit_of_a_table_is_found(page: str) -> None:
    """Each digit of each accuracy, and of its deviation, becomes each other digit."""
    compared = 0
    for section in sections((ROOT / page).read_text(encoding="utf-8")):
        lines = section.splitlines(keepends=True)
        for number, line in enumerate(lines):
            for match in FIGURE.finditer(line) if line.startswith("|") else ():
                for place in (i for i in range(*match.span()) if line[i].isdigit()):
                    for digit in set("0123456789") - {line[place]}:
                        changed = line[:place] + digit + line[place + 1 :]
                        assert wrong_figures("".join([*lines[:number], changed, *lines[number + 1 :]])), changed
                compared += 1
    assert compared >= {"README.md": 6, "docs/choose.md": 40}[page]


def test_swapped_rows_wrong_seeds_and_wrong_sentences_are_found() -> None:
    text = (ROOT / "docs/choose.md").read_text(encoding="utf-8")
    for right, wrong in (
        ("| `cskd` | 50.88 ± 0.64 | 3 |", "| `cskd` | 50.37 ± 0.13 | 3 |"),  # that of mixskd
        ("| `frskd` | 52.96 | 1 |", "| `frskd` | 52.96 | 3 |"),
        ("`cskd` 51.06", "`cskd` 50.51"),
    ):
        assert right in text
        assert len(wrong_in_page(text.replace(right, wrong), set())) == 1


LINK = re.compile(r"\]\(((?:\.\./)+results/[^)]*)/(?:table\.md|runs\.csv)\)")


NUMBERS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight")
CARD = re.compile(r"^\| `(\w+)` \| .*\n\|---\|---\|\n(?:\| .*\n)*?\| Measured \| (.*) \|$", flags=re.MULTILINE)


def test_card_of_a_method_has_the_result_of_its_runs() -> None:
    compared = 0
    for page in sorted((ROOT / "docs/methods").glob("*.md")):
        for name, measured in CARD.findall(page.read_text(encoding="utf-8")):
            if measured == "not yet":
                assert not list((ROOT / "results").glob(f"*/{name}-*")), f"{name} has runs"
                continue
            link = LINK.search(measured)
            assert link
            folder, count = Path(link[1]).name, re.search(r"(\w+) (?:seeds|draws)", measured)
            first = re.match(r"(\d{2}\.\d{2})(?: ± (\d\.\d{2}))? %", measured)
            assert first
            runs = NUMBERS.index(count[1]) if count else 1
            found = [arm for arm in named(name, folder, exact=True) if arm.seeds == runs]
            assert any(arm.has(first[1], first[2] or "", strict=True) for arm in found), name
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


def test_losses_on_the_page_of_mixskd_are_those_of_its_runs() -> None:
    text = (ROOT / "docs/methods/mixskd.md").read_text(encoding="utf-8")
    assert unexplained(text) == ([], [])
    for right, wrong in (("1.18 for", "1.28 for"), ("0.88 to 0.004", "0.88 to 0.04"), ("| 0.692 |", "| 0.629 |")):
        assert right in text
        missing, left = unexplained(text.replace(right, wrong))
        assert len(missing) == 1
        assert left


def test_step_times_in_the_readme_are_those_of_the_benchmark() -> None:
    report = json.loads((ROOT / "results/benchmarks/cpu_avx512bf16/cifar_resnet18_released.json").read_text())
    ours, theirs = (report["variants"][name]["step_seconds"] for name in ("default", "released"))
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"the MixSKD step of a ResNet-18 takes {ours:.1f} s; the released code takes {theirs:.1f} s" in text


def test_times_with_a_million_files_are_those_of_the_benchmark() -> None:
    report = json.loads((ROOT / "results/benchmarks/many_files/two_cores.json").read_text())
    few, *_, many = report["sizes"]
    start, order, memory = "warm_start", "warm_order_of_an_epoch", "pss_per_process"
    text = " ".join((ROOT / "benchmarks/README.md").read_text().split())
    million = f"{many[start]['wall_seconds']:.1f} s, the order of an epoch {many[order]['wall_seconds']:.2f} s"
    assert f"{million}, and each of nine processes {many[memory] / 1e6:.0f} MB" in text
    ten_thousand = f"{few[start]['wall_seconds']:.1f} s, and each process {few[memory] / 1e6:.0f} MB"
    assert f"with {few['files']:,} files it took {ten_thousand}" in text
    assert f"an image takes {many['bytes_per_file_and_process']:.0f} bytes in each process" in text
