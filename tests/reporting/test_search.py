"""The section of the report on a search: its figures, its table, and what a damaged file gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mixskd
from mixskd.artifacts.stored_files import FORMAT, read_search
from mixskd.errors import UserError
from mixskd.reporting.page.search import search_plots
from tests.conftest import write_npz
from tests.reporting.browser import needs_chromium, opened

EVIL = "<b>name</b>"
MEASURE = """
const parts = document.querySelectorAll("#search table, #search figure svg");
document.documentElement.dataset.sizes = [
  document.documentElement.scrollWidth, ...[...parts].map(part => part.getBoundingClientRect().width)].join(" ");
"""


def search() -> dict[str, object]:
    """Eight trials, the fifth failed, two on the last of two rungs; one setting is a name that looks like HTML."""
    trials = [
        {"number": n, "state": "failed" if n == 4 else "complete" if n < 2 else "pruned",
         "parameters": {"method": "mixup" if n % 2 else EVIL, "optim.lr": 0.01 * 2**n,
                        **({"mixup.alpha": 0.2} if n % 2 else {})},
         "scores": [] if n == 4 else [60.0 + n, 70.0 + n][: 2 if n < 2 else 1],
         "operations": 1e12, "seconds": 2.0, "ended": 1000.0 + n}
        for n in range(8)
    ]  # fmt: skip
    return {"format": FORMAT, "operations": [1e12, 3e12], "winner": 1, "tested": {"1": {"top1": 70.5}},
            "importance": {"optim.lr": 0.8, "method": 0.2}, "trials": trials}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    mixskd.train(
        data=str(write_npz(folder / "toy.npz")), backbone="wrn_10_1", method="baseline",
        out=str(folder / "trial001-rung1"), run={"epochs": 1, "batch_size": 4, "progress": False},
    )  # fmt: skip
    (folder / "search.json").write_text(json.dumps(search()))
    return folder


def test_report_shows_the_search(folder: Path, tmp_path: Path) -> None:
    page = mixskd.report(folder, tmp_path / "r.html", figures=tmp_path / "figures").read_text()
    section = page[page.index('<section id="search">') : page.index('<section id="results">')]
    assert "8 trials, 2 of them on the last rung of 2" in section
    assert section.count("<svg") == 3
    assert "70.50" in section
    assert EVIL not in section
    assert {path.name for path in (tmp_path / "figures").glob("search*.svg")} == {
        "search_course.svg", "search_parallel.svg", "search_importance.svg",
    }  # fmt: skip


@needs_chromium
@pytest.mark.chromium
def test_chromium_shows_the_section_and_it_fits_the_page(folder: Path, tmp_path: Path) -> None:
    page = mixskd.report(folder, tmp_path / "r.html")
    for width in (1400, 500):
        shown = opened(page, tmp_path, MEASURE, width=width)
        assert "8 trials, 2 of them on the last rung" in shown
        needed, table, *figures = map(float, re.findall(r'data-sizes="([^"]*)"', shown)[0].split())
        assert needed <= width
        assert 0 < table <= 1400  # on a narrow page it scrolls by itself
        assert len(figures) == 3
        assert all(0 < size <= width for size in figures)


def test_search_with_one_trial_has_its_course_alone() -> None:
    one = search()
    one["trials"], one["importance"] = one["trials"][:1], {}  # type: ignore[index]
    for task, score in ((None, "top-1"), ("multilabel", "mAP")):
        (course,) = search_plots({**one, "task": task})
        assert (course.name, course.figure.axes[0].get_ylabel()) == ("search_course", f"{score} on val (%)")


@pytest.mark.parametrize(
    "damage", [{"format": "other"}, {"trials": [{}]}, {"operations": []}, {"importance": {"a": "b"}}, {"winner": -1}]
)
def test_damaged_file_is_named(damage: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps({**search(), **damage}))
    with pytest.raises(UserError, match=r"search.json is not the file of a search"):
        read_search(tmp_path / "search.json")
