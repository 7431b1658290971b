"""The colours of figures, the numbers in a confusion matrix, and tables that fit the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mixskd.config.registry import METHODS
from mixskd.reporting.evidence import Readable, read_evidence
from mixskd.reporting.page.blocks import (
    PAGE_WIDTH,
    Block,
    column_groups,
    column_width,
    fold,
    render,
    render_blocks,
    table,
)
from mixskd.reporting.page.mistakes import EACH_RUN, suspect_section
from mixskd.reporting.plots.colours import ORDER, Looks, method_colour
from mixskd.reporting.plots.suites import suite_plots
from mixskd.reporting.tables.cells import Number, Spread, Table
from tests.artifacts.test_stored_files import RESULTS
from tests.reporting.test_tables import write_run


def test_every_method_has_a_colour_of_its_own() -> None:
    assert set(ORDER) <= set(METHODS)
    assert len({method_colour(name) for name in ORDER}) == len(ORDER)
    assert method_colour("of_a_plugin") == method_colour("of_a_plugin")


def test_method_has_one_colour_in_reports_of_different_runs(tmp_path: Path) -> None:
    for folder, names in (("few", ["mixskd"]), ("many", ["baseline", "cskd", "mixskd"])):
        for name in names:
            write_run(tmp_path / folder, f"{name}-seed0", (70.0, 71.0), **{"method.name": name})
    options = {"method.name": "mixskd", "method.mix": "cutmix"}
    write_run(tmp_path / "many", "mixskd_cutmix-seed0", (72.0, 72.0), **options)
    evidence = [read_evidence([tmp_path / folder]) for folder in ("few", "many")]
    few, many = ({line.label: Looks(one).line(line) for line in one.lines} for one in evidence)
    assert few["mixskd"]["color"] == many["mixskd"]["color"] == many["mixskd_cutmix"]["color"]
    assert many["mixskd"]["linestyle"] != many["mixskd_cutmix"]["linestyle"]
    assert len({look["color"] for look in many.values()}) == 3


def with_suite(folder: Path, name: str, result: object) -> None:
    write_run(folder, "baseline-seed0", (70.0, 71.0), **{"method.name": "baseline"})
    (folder / "baseline-seed0" / "evaluation").mkdir()
    (folder / "baseline-seed0" / "evaluation" / f"{name}.json").write_text(json.dumps(result))


def test_confusion_matrix_has_the_numbers_of_images_in_its_cells(tmp_path: Path) -> None:
    counts = [[41, 2], [0, 57]]
    classes = [{**RESULTS["accuracy"]["classes"][0], "name": name} for name in ("cat", "dog")]
    with_suite(tmp_path, "accuracy", {**RESULTS["accuracy"], "confusion": counts, "classes": classes})
    evidence = read_evidence([tmp_path])
    (plot,) = suite_plots(evidence, Looks(evidence))["accuracy"]
    ax = plot.figure.axes[0]
    assert {text.get_text(): text.get_position() for text in ax.texts} == {"41": (0, 0), "2": (1, 0), "57": (1, 1)}


def test_likely_wrong_labels_are_ranked_and_few(tmp_path: Path) -> None:
    suspects = [{**RESULTS["errors"]["suspects"][0], "path": None, "index": index} for index in range(40)]
    with_suite(tmp_path, "errors", {**RESULTS["errors"], "suspects": suspects, "number_of_suspects": 206})
    blocks = suspect_section(read_evidence([tmp_path]), Readable())
    (shown,) = [block for block in blocks if block.kind == "fold"]
    assert shown.open
    assert f"the {EACH_RUN} labels" in shown.title
    assert "206" not in render_blocks(blocks)
    rows = next(block.value for block in shown.value if block.kind == "table")
    assert [row["image"] for row in rows] == [f"image {index}" for index in range(EACH_RUN)]


def test_wide_table_is_folded_into_groups_that_fit_the_page() -> None:
    rows: Table = [{"run": "mixskd", **{f"a column of number {i}": Spread(70.0, 0.5) for i in range(20)}}]
    groups = column_groups(rows)
    assert len(groups) > 1
    for group in groups:
        assert group[0] == "run"
        assert sum(column_width(rows, column) for column in group) <= PAGE_WIDTH
    assert [column for group in groups for column in group[1:]] == list(rows[0])[1:]
    page = render_blocks(table(rows))
    assert page.count("70.00 ± 0.50") == 20
    assert f"<summary>{20 - len(groups[0]) + 1} more columns</summary>" in page
    assert len(column_groups([{"run": "mixskd", "top-1 (%)": Number(70.0, 2)}])) == 1


class Tags(HTMLParser):
    """Fails at a tag that closes another one than the last that was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "br"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


@pytest.mark.parametrize("open", [True, False])
def test_every_kind_of_block_is_whole_html_with_escaped_text(open: bool) -> None:
    evil = "<b>&\u202e"
    picture = [("data:image/jpeg;base64,AA==", evil), (None, evil)]
    blocks = [Block(kind, evil) for kind in ("text", "note", "published")]
    blocks += [Block("list", [(evil, evil)]), Block("code", f"{evil}\n  {evil}"), *table([{evil: evil}])]
    blocks += [Block("pictures", picture), Block("pairs", picture), Block("batch", {evil: picture[:1]})]
    page = render(evil, {"One part": fold(evil, blocks, open=open)})
    parser = Tags()
    parser.feed(page)
    assert parser.opened == []
    assert "<b>" not in page
    assert "\u202e" not in page
    assert page.count("&lt;b&gt;&amp;\\u202e") == 18
    assert "\n  &lt;b&gt;" in page
    assert ("<details open>" in page) == open
    assert '<section id="one-part">' in page
    assert page.startswith("<!DOCTYPE html>")
