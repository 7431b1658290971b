"""The named ablations: that they are grids, and stand beside the values that the paper prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mixskd.cli.main import main
from mixskd.comparison.comparison import to_yaml
from mixskd.comparison.grid import default_values, grid_from
from mixskd.comparison.plan import plan
from mixskd.config import grids, nest, read_yaml
from mixskd.config.build import build_experiment, make_config
from mixskd.errors import UserError
from mixskd.methods import method_class
from mixskd.reporting.published.classification import place_of, published_in


@pytest.mark.parametrize("name", grids.names())
def test_every_grid_is_one_and_its_arms_differ(name: str, tmp_path: Path) -> None:
    grid = grid_from({**default_values(), **grids.load(name), "backbones": ["cifar_resnet18"], "seeds": [0]})
    configs = []
    for run in plan(dataclasses.replace(grid, transfer=None), tmp_path):
        choice = run.experiment.method
        configs.append((choice.name, make_config(method_class(choice.name).Config, choice.options)))
    assert len(configs) == len(grid.arms) == len({str(c) for c in configs})
    assert grids.description(name).endswith(".")
    path = tmp_path / "grid.yaml"
    path.write_text(to_yaml(grid))
    assert grid_from(read_yaml(path)) == grid


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("table4", [77.08, 77.68, 78.14, 78.47, 78.06, 78.23, 78.54, 78.76]),
        ("table5_temperature", [77.94, 78.21, 78.76, 78.65, 78.37]),
        ("table5_stages", [78.01, 78.18, 78.36, 78.42, 78.76]),
    ],
)
def test_the_papers_value_stands_beside_each_row(name: str, printed: list[float]) -> None:
    grid = grid_from({"recipe": "cifar100", **grids.load(name)})
    assert grid.paper_table is not None
    experiments = [build_experiment(nest(arm.settings)) for arm in grid.arms]
    values = [published_in(grid.paper_table, experiment) for experiment in experiments]
    assert [value and value.top1 for value in values] == printed
    assert place_of(grid.paper_table) == "imagenet, resnet50"


def test_what_the_paper_does_not_print_has_no_value() -> None:
    experiment = build_experiment(nest({"method.name": "mixskd", "method.temperature": 7}))
    assert published_in("Table 5, temperature", experiment) is None
    with pytest.raises(UserError, match="unknown table of the paper 'Table 9'"):
        place_of("Table 9")


def test_the_command_line_takes_a_grid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "--grid", "mix", "--seeds", "0", "--dry-run", "--out", str(tmp_path / "x")]) == 0
    names = [line.split("-")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["mixup", "cutmix", "mixskd", "mixskd_cutmix"]
    assert main(["compare", "--grid", "table9"]) == 2
    assert "unknown grid 'table9'; did you mean 'table4'?" in capsys.readouterr().err
