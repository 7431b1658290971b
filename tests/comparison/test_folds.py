"""A comparison over folds: the same division for every method, a row over all folds, and the runs again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import mixskd
from mixskd.comparison.grid import grid_from
from mixskd.comparison.plan import plan
from mixskd.config import DataConfig
from mixskd.errors import UserError


def test_compare_trains_every_fold_and_tabulates_over_them(tmp_path: Path) -> None:
    done = mixskd.compare(
        methods=["baseline", "mixup"], backbones=["wrn_10_1"], seeds=[0], folds=2, out=str(tmp_path),
        data={"per_class": 4, "holdout": DataConfig().holdout}, optim={"warmup_epochs": 0},
        run={"epochs": 1, "batch_size": 20}, jobs=1, devices="cpu", progress=False,
    )  # fmt: skip
    assert [(row["method"], row["seeds"], row["folds"]) for row in done.rows] == [
        ("baseline", "0", "2 of 2"), ("mixup", "0", "2 of 2"),
    ]  # fmt: skip
    divisions = {run.name: (run / "splits.csv").read_text() for run in tmp_path.glob("*-seed0")}
    assert divisions["baseline-wrn_10_1-fold0-seed0"] == divisions["mixup-wrn_10_1-fold0-seed0"]
    assert divisions["baseline-wrn_10_1-fold0-seed0"] != divisions["baseline-wrn_10_1-fold1-seed0"]
    with (tmp_path / "runs.csv").open() as file:
        assert [(row["method"], row["fold"]) for row in csv.DictReader(file)] == [
            ("baseline", "0"), ("baseline", "1"), ("mixup", "0"), ("mixup", "1"),
        ]  # fmt: skip
    again = mixskd.compare(grid=None, **_grid(tmp_path), out=str(tmp_path), progress=False)
    assert again.rows == done.rows


def _grid(folder: Path) -> dict[str, object]:
    from mixskd.config import read_yaml

    return {**read_yaml(folder / "grid.yaml"), "recipe": None}


def test_folds_of_all_seeds_are_planned(tmp_path: Path) -> None:
    runs = plan(grid_from({"methods": "baseline", "backbones": "wrn_10_1", "seeds": "0,1", "folds": "3"}), tmp_path)
    assert [run.name for run in runs] == [
        f"baseline-wrn_10_1-fold{fold}-seed{seed}" for seed in (0, 1) for fold in (0, 1, 2)
    ]


@pytest.mark.parametrize(("folds", "message"), [(1, "--folds must be 2 or more"), ("x", "folds must be a whole")])
def test_mistaken_folds_are_refused(folds: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid_from({"methods": "baseline", "folds": folds})
