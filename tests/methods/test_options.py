"""Runs of an older version, which had fewer options, are the same as runs with the defaults of the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import mixskd
from mixskd.artifacts.results import read_result
from mixskd.comparison.grid import grid_from
from mixskd.comparison.plan import plan
from mixskd.config.build import build_experiment

SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "run": {"epochs": 1, "batch_size": 4, "progress": False, "precision": "fp32"},
}  # fmt: skip


def test_options_that_are_not_named_have_their_defaults() -> None:
    experiment = build_experiment({"method": {"name": "mixskd", "preset": "light", "alpha": "0.3"}})
    options = experiment.method.options
    assert (options["alpha"], options["branches"], options["share"]) == (0.3, False, 1.0)


def test_a_run_of_an_older_version_belongs_to_the_comparison(tmp_path: Path, npz: Path) -> None:
    grid = grid_from({**SETTINGS, "data": {"source": str(npz)}, "methods": "ict", "seeds": "0"})
    (run,) = plan(grid, tmp_path)
    mixskd.train(data=str(npz), method="ict", out=str(run.files.path), **SETTINGS)
    before = read_result(run.files.path).setting()
    config = run.files.path / "config.yaml"
    older = yaml.safe_load(config.read_text())
    del older["method"]["teacher_share"]
    config.write_text(yaml.safe_dump(older))
    assert plan(grid, tmp_path)[0].finished
    assert read_result(run.files.path).setting() == before
