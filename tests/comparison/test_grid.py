"""What a grid is, and which runs follow from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mixskd.benchmarking.cost import count_cost
from mixskd.cli.launching import _value
from mixskd.cli.main import main
from mixskd.comparison.comparison import grid_yaml
from mixskd.comparison.grid import Arm, default_values, grid_from, parse_arm
from mixskd.comparison.plan import plan
from mixskd.config import MethodChoice, difference, read_yaml
from mixskd.errors import UserError

SMALL = {"backbones": ["wrn_10_1"], "data": {"source": "digits", "per_class": 8}, "run": {"epochs": 6, "batch_size": 8}}


def runs_of(tmp_path: Path, **values: Any) -> dict[str, Any]:
    return {run.name: run for run in plan(grid_from({**SMALL, **values}), tmp_path)}


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("mixup", Arm("mixup", {"method.name": "mixup"})),
        ("mixskd[mix=cutmix]", Arm("mixskd[mix=cutmix]", {"method.name": "mixskd", "method.mix": "cutmix"})),
        (
            "short = mixup[alpha=0.2,run.epochs=3]",
            Arm("short", {"method.name": "mixup", "method.alpha": "0.2", "run.epochs": "3"}),
        ),
        (
            "mixskd[teacher_stages=[1,3],beta=2]",
            Arm(
                "mixskd[teacher_stages=[1,3],beta=2]",
                {"method.name": "mixskd", "method.teacher_stages": "[1,3]", "method.beta": "2"},
            ),
        ),
    ],
)
def test_arm_is_parsed_from_text(text: str, arm: Arm) -> None:
    assert parse_arm(text) == arm


def test_mapping_of_methods_equals_the_text_form() -> None:
    options = {"mixup": None, "cut": {"name": "mixskd", "mix": "cutmix", "run.epochs": 3}, "cskd": "cskd[weight=3]"}
    by_mapping = grid_from({"methods": options}).arms
    by_text = grid_from({"methods": "mixup,cut=mixskd[mix=cutmix,run.epochs=3],cskd=cskd[weight=3]"}).arms
    assert [(a.label, {k: str(v) for k, v in a.settings.items()}) for a in by_mapping] == [
        (a.label, a.settings) for a in by_text
    ]


def test_grid_is_the_product_of_its_axes(tmp_path: Path) -> None:
    runs = runs_of(
        tmp_path, methods="mixup,big=mixup[run.batch_size=16]", backbones="wrn_10_1,wrn_10_2", seeds="3,5",
        augments="none,cutout",
    )  # fmt: skip
    assert len(runs) == 2 * 2 * 2 * 2
    assert list(runs)[:2] == ["mixup-wrn_10_1-seed3", "big-wrn_10_1-seed3"]
    run = runs["big-wrn_10_2-cutout-seed5"].experiment
    assert (run.backbone, run.data.augment, run.run.seed, run.run.batch_size) == ("wrn_10_2", "cutout", 5, 16)
    assert run.data.per_class == 8
    assert run.out == str(tmp_path / "big-wrn_10_2-cutout-seed5")


def test_configuration_of_a_run_is_a_grid_of_one(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, methods="mixup[alpha=0.3]", seeds="4").values()
    run.files.begin(run.experiment)
    (again,) = plan(grid_from({**read_yaml(run.files.config), "seeds": [4]}), tmp_path / "other")
    assert not difference(run.experiment, again.experiment)


def test_options_of_a_recipe_apply_to_its_own_method_only(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, recipe="imagenet", methods="mixskd,mixup", backbones="resnet50", seeds="0")
    assert runs["mixskd-resnet50-seed0"].experiment.method.options["alpha"] == 0.2
    assert runs["mixup-resnet50-seed0"].experiment.optim.nesterov is False


def test_written_grid_reads_back_equal(tmp_path: Path) -> None:
    grid = grid_from(default_values())
    (tmp_path / "grid.yaml").write_text(grid_yaml(grid))
    assert grid_from(read_yaml(tmp_path / "grid.yaml")) == grid


def test_teacher_is_trained_first_and_once(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, methods="tfkd_self,plain=baseline", seeds="1,2")
    assert list(runs) == [f"{label}-wrn_10_1-seed{seed}" for seed in (1, 2) for label in ("plain", "tfkd_self")]
    taught = runs["tfkd_self-wrn_10_1-seed2"]
    assert taught.after == ("plain-wrn_10_1-seed2",)
    assert taught.experiment.method.options["teacher"] == str(tmp_path / "plain-wrn_10_1-seed2")


def test_missing_teacher_is_added_to_the_grid(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, methods="tfkd_self[run.epochs=3],baseline", seeds="1")
    teacher = runs["baseline_for_tfkd_self_run.epochs=3-wrn_10_1-seed1"]
    assert (teacher.experiment.method.name, teacher.experiment.run.epochs) == ("baseline", 3)
    assert runs["tfkd_self_run.epochs=3-wrn_10_1-seed1"].after == (teacher.name,)
    own = runs_of(tmp_path, methods="tfkd_self[teacher=somewhere]", seeds="1")
    assert [run.after for run in own.values()] == [()]


def test_equal_updates_change_the_epochs(tmp_path: Path) -> None:
    """80 images: 10 updates an epoch at a batch of 8, 6 epochs; 5 an epoch at 16, so 12 epochs; 3 at 24, so 20."""
    settings = {"optim": {"warmup_epochs": 2, "milestones": [3, 5]}, "seeds": "0", "equal_updates": "mixskd"}
    runs = runs_of(tmp_path, methods="mixskd,mixup[run.batch_size=16],baseline[run.batch_size=24]", **settings)
    by_method = {run.experiment.method.name: run.experiment for run in runs.values()}
    assert {name: e.run.epochs for name, e in by_method.items()} == {"mixskd": 6, "mixup": 12, "baseline": 20}
    assert by_method["mixup"].optim.warmup_epochs == 4
    assert by_method["mixup"].optim.milestones == (6, 10)


def test_equal_cost(tmp_path: Path) -> None:
    """CS-KD costs a forward pass more, which is a third less the gradient of the images."""
    methods, run = "baseline,cskd,mixup[run.batch_size=16],ict", {"epochs": 60, "batch_size": 8}
    settings = {"optim": {"warmup_epochs": 4, "milestones": [30, 45]}, "seeds": "0,1", "run": run}
    experiments = [one.experiment for one in runs_of(tmp_path, methods=methods, equal_cost="cskd", **settings).values()]
    epochs = {(e.method.name, e.run.seed): e.run.epochs for e in experiments}
    plain, partner = (
        count_cost(next(e for e in experiments if e.method.name == n), 10, 8) for n in ("baseline", "cskd")
    )
    more = round(60 * partner.training_flops / plain.training_flops)
    assert 79 <= more <= 82
    for seed in (0, 1):
        assert {name: epochs[name, seed] for name in ("baseline", "cskd", "mixup", "ict")} == {
            "baseline": more, "cskd": 60, "mixup": more, "ict": 60,
        }  # fmt: skip
    baseline = next(e for e in experiments if e.method.name == "baseline")
    assert baseline.optim.warmup_epochs == pytest.approx(4 * more / 60)
    assert baseline.optim.milestones == (round(30 * more / 60), round(45 * more / 60))


@pytest.mark.parametrize(("methods", "reference"), [("mixup,baseline", "baseline"), ("mixup,cskd", "mixup")])
@pytest.mark.parametrize("value", [True, ""])
def test_equal_cost_is_that_of_the_baseline_or_else_of_the_first(methods: str, reference: str, value: object) -> None:
    assert grid_from({**SMALL, "methods": methods, "equal_cost": value}).equal_cost == reference


def test_the_flag_for_equal_cost_needs_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--methods", "mixup,cskd", "--out", str(tmp_path), "--dry-run", "--equal-cost"]
    assert main(words) == 0
    assert "cskd-wrn_10_1-seed0: to run" in capsys.readouterr().out
    assert main([*words, "baseline"]) == 2
    assert "--equal-cost 'baseline' is not one of the methods" in capsys.readouterr().err


def test_a_teacher_that_is_yet_to_be_trained_is_counted_as_the_student(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, methods="baseline,kd", equal_cost="kd", seeds="0", run={"epochs": 60, "batch_size": 8})
    assert 79 <= runs["baseline-wrn_10_1-seed0"].experiment.run.epochs <= 82


def test_images_per_update_set_the_batch_sizes(tmp_path: Path) -> None:
    runs = runs_of(
        tmp_path, methods="mixskd,mixup,bake,cskd,odd=ddgsd[run.batch_size=5]", seeds="0", images_per_update=16
    )
    sizes = {run.label: run.experiment.run.batch_size for run in runs.values()}
    assert sizes == {"mixskd": 8, "mixup": 16, "bake": 4, "cskd": 8, "odd": 5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": "mixkd"}, "did you mean 'mixskd'"),
        ({"methods": "mixskd[mix"}, "cannot read the method"),
        ({"methods": "mixskd[mix]"}, "write option=value"),
        ({"methods": "mixskd[temprature=4]"}, "did you mean 'method.temperature'"),
        ({"methods": "mixup,mixup"}, "names 'mixup' twice"),
        ({"methods": "a-b=mixup,a_b=mixup[alpha=0.2]"}, "would have the same folder"),
        ({"seeds": "0,one"}, "seeds must be a list of whole numbers"),
        ({"seeds": []}, "no seeds"),
        ({"equal_updates": "mixup"}, "not one of the methods"),
        ({"methods": "mixup", "equal_updates": "mixup", "equal_cost": "mixup"}, "set the epochs both; give one"),
        ({"images_per_update": 0}, "1 or more"),
        ({"optim": {"lrr": 1}}, "did you mean 'optim.lr'"),
        ({"method_s": "mixup"}, "did you mean 'methods'"),
        ({"methods": {"mixup": {1: 2}}}, "unknown key method.1"),
        ({"methods": f"mixup[alpha=0.2{'0' * 300}]"}, "too long for a folder's name; give it a label"),
    ],
)
def test_mistake_in_a_grid_is_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        runs_of(tmp_path, **values)


def test_folder_with_other_settings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = runs_of(tmp_path, methods="mixup", seeds="0").values()
    run.files.begin(run.experiment)
    assert runs_of(tmp_path, methods="mixup", seeds="0")
    with pytest.raises(UserError, match=r"optim\.lr 0\.1 -> 0\.2"):
        runs_of(tmp_path, methods="mixup", seeds="0", optim={"lr": 0.2})
    assert main(["compare", "--methods", "mixup", "--out", str(tmp_path), "--dry-run"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_weights_of_all_runs_and_of_one_arm(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, methods="mixup,own=mixup[weights=runs/b],tfkd_self", seeds="0", weights="runs/a")
    assert {run.label: run.experiment.weights for run in runs.values()} == {
        "mixup": "runs/a", "own": "runs/b", "tfkd_self": "runs/a", "baseline": "runs/a",
    }  # fmt: skip


def test_moved_folder_keeps_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in runs_of(Path("grid"), methods="tfkd_self", seeds="0").values():
        run.files.begin(run.experiment)
    assert len(runs_of(tmp_path / "grid", methods="tfkd_self", seeds="0")) == 2
    (tmp_path / "grid").rename(tmp_path / "moved")
    runs = runs_of(tmp_path / "moved", methods="tfkd_self", seeds="0")
    assert len(runs) == 2
    taught = runs["tfkd_self-wrn_10_1-seed0"].experiment
    for place in ("one", "two"):
        (tmp_path / place / "model.safetensors").mkdir(parents=True)
    one, two = (
        dataclasses.replace(taught, method=MethodChoice("tfkd_self", {**taught.method.options, "teacher": teacher}))
        for teacher in ("one/model.safetensors", "two/model.safetensors")
    )
    assert difference(one, two) == ["method.teacher one/model.safetensors -> two/model.safetensors"]


def test_options_without_a_method_apply_to_the_default_method(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, seeds="0", method={"temperature": 7}).values()
    assert (run.experiment.method.name, run.experiment.method.options["temperature"]) == ("mixskd", 7.0)


def test_share_of_the_digits_is_not_applied_to_other_data() -> None:
    assert default_values({"optim": {"lr": 0.2}})["data"] == default_values()["data"]
    values = default_values({"data": {"source": "photos", "workers": 4}})
    assert values["data"] == {"source": "photos", "workers": 4}
    assert values["run"] == default_values()["run"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("12:00:00", "12:00:00"), ("2", 2), ("0.5", 0.5), ("true", True), ("[1,2]", [1, 2]), ("a: b: c", "a: b: c")],
)
def test_launcher_option_is_parsed_as_json_or_text(text: str, value: Any) -> None:
    assert _value(text) == value


def test_dry_run_lists_runs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    assert main(["compare", "--methods", "tfkd_self", "--seeds", "0", "--out", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "baseline-wrn_10_1-seed0: to run",
        "tfkd_self-wrn_10_1-seed0: to run, after baseline-wrn_10_1-seed0",
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method", "mixup"], "did you mean '--methods'"),
        (["--launcher", "slrum"], "did you mean 'slurm'"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--devices", "7"], "no GPU '7'"),
        (["--launcher.partition", "x"], "no option 'partition'"),
        (["--table", "nowhere"], "no finished run in nowhere"),
        (["--config", "nowhere.yaml"], "cannot read the configuration"),
        (["--method.temperature", "7"], "write --methods 'NAME[temperature=7]'"),
    ],
)
def test_mistake_on_the_command_line_gives_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
