"""The named ablations: that they are grids, and stand beside the values that the paper prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mixskd.cli.main import main
from mixskd.comparison.comparison import grid_yaml
from mixskd.comparison.grid import default_values, grid_from
from mixskd.comparison.plan import plan
from mixskd.config import grids, read_yaml
from mixskd.config.build import build_experiment, make_config
from mixskd.config.merging import merge
from mixskd.errors import UserError
from mixskd.methods import method_class
from mixskd.reporting.published.classification import place_of, published, published_in


@pytest.mark.parametrize("name", grids.names())
def test_every_named_grid_is_valid_and_its_arms_differ(name: str, tmp_path: Path) -> None:
    given = grids.load(name)
    grid = grid_from({**default_values(), **given, "backbones": ["cifar_resnet18"], "seeds": [0]})
    grid = dataclasses.replace(grid, images_per_update=None)  # counted elsewhere
    different = set()
    for run in plan(dataclasses.replace(grid, transfer=None), tmp_path):
        choice = run.experiment.method
        config = make_config(method_class(choice.name).Config, choice.options)
        different.add((choice.name, str(config), run.experiment.data.augment))
    assert len(different) == len(grid.arms)
    assert grids.description(name).endswith(".")
    path = tmp_path / "grid.yaml"
    path.write_text(grid_yaml(grid))
    assert grid_from(read_yaml(path)) == grid


@pytest.mark.parametrize(("name", "source", "rows"), [("table1", "cifar100", 17 * 4), ("table2", "cub200", 12)])
def test_every_run_of_a_papers_table_has_its_published_value(name: str, source: str, rows: int, tmp_path: Path) -> None:
    grid = dataclasses.replace(grid_from({**grids.load(name), "seeds": [0]}), images_per_update=None)
    runs = plan(grid, tmp_path)
    assert len(runs) == rows
    assert {run.experiment.data.source for run in runs} == {source}
    assert [run.name for run in runs if published(run.experiment) is None] == []


def test_a_papers_table_needs_no_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--grid", "figure3", "--seeds", "0", "--dry-run", "--out", str(tmp_path / "x")]
    assert main(["compare", *words]) == 0
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [f"{method}-cifar_resnet18-seed0" for method in ("baseline", "mixup", "mixskd")]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("table4", [77.08, 77.68, 78.14, 78.47, 78.06, 78.23, 78.54, 78.76]),
        ("table5_temperature", [77.94, 78.21, 78.76, 78.65, 78.37]),
        ("table5_stages", [78.01, 78.18, 78.36, 78.42, 78.76]),
    ],
)
def test_papers_value_is_found_for_each_row(name: str, printed: list[float]) -> None:
    grid = grid_from({"recipe": "cifar100", **grids.load(name)})
    assert grid.paper_table is not None
    experiments = [build_experiment(merge(arm.settings)) for arm in grid.arms]
    values = [published_in(grid.paper_table, experiment) for experiment in experiments]
    assert [value and value.top1 for value in values] == printed
    assert place_of(grid.paper_table) == "imagenet, resnet50"


def test_unpublished_setting_has_no_value() -> None:
    experiment = build_experiment(merge({"method.name": "mixskd", "method.temperature": 7}))
    assert published_in("Table 5, temperature", experiment) is None
    with pytest.raises(UserError, match="unknown table of the paper 'Table 9'"):
        place_of("Table 9")


def test_command_line_accepts_a_named_grid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "--grid", "mix", "--seeds", "0", "--dry-run", "--out", str(tmp_path / "x")]) == 0
    names = [line.split("-")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["mixup", "cutmix", "mixskd", "mixskd_cutmix"]
    assert main(["compare", "--grid", "table9"]) == 2
    assert "unknown grid 'table9'; did you mean 'table1'?" in capsys.readouterr().err
