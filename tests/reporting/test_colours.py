"""The report on a phone and on a desk, in the light and in the dark, in a browser."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from mixskd import api
from tests.reporting.browser import needs_chromium, opened
from tests.reporting.support import EVIL, write_suites
from tests.reporting.test_tables import write_run

pytestmark = [pytest.mark.chromium, needs_chromium]

MEASURE = """
document.querySelectorAll("details").forEach(part => { part.open = true; });
const colours = element => { const style = getComputedStyle(element); return [style.backgroundColor, style.color]; };
const root = document.documentElement, svg = document.querySelector("figure svg");
let sorted = 0, unsorted = [];
for (const table of document.querySelectorAll("table.sorts"))
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.firstChild.click();
    const cells = [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value);
    const values = cells.filter(value => value !== undefined).map(Number);
    const right = values.every((value, index) => index === 0 || values[index - 1] <= value);
    if (right && head.getAttribute("aria-sort") === "ascending") sorted += 1; else unsorted.push(head.textContent);
  });
root.dataset.measured = JSON.stringify({
  width: innerWidth, needed: root.scrollWidth, body: colours(document.body), drawn: getComputedStyle(svg).color,
  sorted, unsorted, letters: Math.min(...[...document.querySelectorAll("figure svg")].map(
    one => 8 * one.getBoundingClientRect().width / one.viewBox.baseVal.width)),
  heads: Math.max(...[...document.querySelectorAll(".sorts th")].map(head => head.offsetHeight)),
});
"""
LIGHT, DARK = ["rgb(255, 255, 255)", "rgb(28, 31, 35)"], ["rgb(21, 24, 28)", "rgb(228, 231, 235)"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every suite and a name of one long word, and one without."""
    folder = tmp_path_factory.mktemp("looks")
    write_run(folder / "runs", "baseline-seed0", (70.0, 71.0), **{"method.name": "baseline"})
    run = folder / "runs" / f"{'long' * 20}-seed0"
    write_run(run.parent, run.name, (72.0, 72.5), **{"method.name": "mixskd"})
    rows = ["epoch,step,lr,train_loss,train_feature,test_top1"]
    rows += [f"{e},{e},0.1,{9 / e},{1 / e},{e}" for e in range(1, 11)]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    write_suites(run, EVIL)
    return api.report(folder / "runs", folder / "report.html")


def measured(page: str) -> dict[str, Any]:
    found = re.search(r'data-measured="([^"]*)"', page)
    assert found is not None
    values: dict[str, Any] = json.loads(html.unescape(found[1]))
    return values


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_has_its_theme_and_sorts(report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    found = measured(opened(report, tmp_path, MEASURE, width=width, dark=dark))
    assert found["width"] == width
    assert found["needed"] <= width
    assert found["body"] == (DARK if dark else LIGHT)
    assert found["drawn"] == found["body"][1]  # figures have the colour of the text
    assert found["unsorted"] == []
    assert found["sorted"] > 50
    assert found["letters"] > 6.5  # px of the smallest text in a figure
    assert found["heads"] < 120


def test_browser_reports_a_request_to_the_network(report: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CONSOLE"):
        opened(
            report, tmp_path, 'document.body.append(Object.assign(new Image(), { src: "https://example.org/a.png" }));'
        )


PIXELS = """
addEventListener("load", () => {
  const paper = getComputedStyle(document.body).backgroundColor;
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = [...document.querySelectorAll("#confusion figure svg image")].map(image => {
    const width = Math.ceil(image.width.baseVal.value), height = Math.ceil(image.height.baseVal.value);
    Object.assign(pen.canvas, { width, height });
    pen.fillStyle = paper;
    pen.fillRect(0, 0, width, height);
    pen.drawImage(image, 0, 0, width, height);
    return [0, height - 1].map(y => [...pen.getImageData(width >> 1, y, 1, 1).data].slice(0, 3));
  });
  document.documentElement.dataset.measured = JSON.stringify({ paper: paper.match(/\\d+/g).map(Number), seen });
});
"""


@pytest.mark.parametrize("dark", [False, True])
def test_zero_in_a_confusion_matrix_has_the_colour_of_the_page(report: Path, tmp_path: Path, dark: bool) -> None:
    found = measured(opened(report, tmp_path, PIXELS, dark=dark))
    (_, bar), paper = found["seen"], found["paper"]  # the matrix, and the bar beside it from 0 to 100 %
    assert paper == ([21, 24, 28] if dark else [255, 255, 255])
    for seen, wanted in zip(sorted(bar, key=lambda end: math.dist(end, paper)), (paper, [38, 115, 217]), strict=True):
        assert seen == pytest.approx(wanted, abs=6)
