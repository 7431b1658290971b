"""Paired differences with their interval, in the table and by SciPy, and accuracy over spent operations."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mixskd.cli.main import main
from mixskd.comparison.comparison import tabulate
from mixskd.reporting.evidence import read_evidence
from mixskd.reporting.plots.colours import Looks
from mixskd.reporting.plots.curves import operation_plots
from mixskd.reporting.tables.paired_differences import t_interval
from tests.reporting.test_tables import write_run

PLAIN, MIXED, FEW = {0: 70.1, 1: 71.3, 2: 69.6, 3: 70.0}, {0: 70.9, 1: 71.8, 3: 71.1, 7: 90.0}, {0: 75.0, 1: 75.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison at the cost of ``plain``; a seed of ``mixup`` has no partner."""
    folder = tmp_path_factory.mktemp("runs")
    arms = {"plain": ("baseline", PLAIN), "mixup": ("mixup", MIXED), "few": ("cutmix", FEW)}
    for label, (method, scores) in arms.items():
        for seed, top1 in scores.items():
            write_run(folder, f"{label}-seed{seed}", (top1, top1), **{"method.name": method, "run.seed": seed})
    (folder / "grid.yaml").write_text(
        "methods: {plain: {name: baseline}, mixup: {}, few: {name: cutmix}}\nequal_cost: plain"
    )
    return folder


def test_the_interval_is_scipys() -> None:
    values = [0.8, 0.5, 1.1, -0.3, 0.2]
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = t_interval(values)
    assert interval is not None
    assert interval == pytest.approx((np.mean(values), found.low, found.high))
    assert t_interval(values[:2]) is None


def test_differences_are_paired_by_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tabulate(folder)
    rows = {row["method"]: row for row in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    interval = t_interval([70.9 - 70.1, 71.8 - 71.3, 71.1 - 70.0])
    assert interval is not None
    mean, low, high = interval
    column = "difference to plain"
    assert (rows["plain"][column], rows["few"][column]) == ("", "too few seeds")
    found = [float(rows["mixup"][name]) for name in (column, f"{column} from", f"{column} to")]
    assert found == pytest.approx([mean, low, high])
    assert f"| {mean:+.2f} [{low:+.2f}, {high:+.2f}] |" in (folder / "table.md").read_text()
    assert main(["compare", "--table", str(folder)]) == 0
    assert f"{mean:+.2f} [" in capsys.readouterr().out
    assert "95 % t-interval" in (folder / "table.md").read_text()
    assert float(rows["mixup"]["TFLOPs in training"]) == float(rows["plain"]["TFLOPs in training"]) > 0


def test_differences_are_paired_by_fold_too(tmp_path: Path) -> None:
    for method, scores in {"baseline": (60.0, 70.0, 80.0), "mixup": (61.0, 72.0, 83.0)}.items():
        for fold, top1 in enumerate(scores):
            changes = {"method.name": method, "data.folds": 3, "data.fold": fold}
            write_run(tmp_path, f"{method}-fold{fold}-seed0", (top1, top1), **changes)
    (tmp_path / "grid.yaml").write_text("methods: {baseline: {}, mixup: {}}\nequal_cost: baseline")
    rows = {row["method"]: row for row in tabulate(tmp_path)}
    assert rows["mixup"]["difference to baseline"] == pytest.approx(2.0)


def test_accuracy_is_drawn_over_the_operations_that_were_spent(folder: Path) -> None:
    for name in ("plain-seed0", "mixup-seed0"):
        rows = ["epoch,step,test_top1", *(f"{epoch},{10 * epoch},{2 * epoch}" for epoch in range(1, 31))]
        (folder / name / "metrics.csv").write_text("\n".join(rows) + "\n")
    evidence = read_evidence([folder])
    (plot,) = operation_plots(evidence, Looks(evidence))
    assert plot is not None
    lines = plot.figure.axes[0].get_lines()
    assert {line.get_label() for line in lines} == {"plain", "mixup"}
    cost = evidence.lines[0].cost.training_flops
    assert all(line.get_xdata()[-1] == pytest.approx(19200 * cost / 1e12, rel=0.01) for line in lines)
    assert list(lines[0].get_ydata()) == [2 * epoch for epoch in range(1, 31)]
