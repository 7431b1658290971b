"""Suites on the folders of runs: what is written, and what a mistake is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mixskd
from mixskd.artifacts.model_file import load_model, save_model
from mixskd.backbones import build_backbone
from mixskd.cli.main import main
from mixskd.errors import UserError
from mixskd.evaluation import runner as session
from mixskd.evaluation.split_scores import evaluation_data
from mixskd.evaluation.suites import SUITES
from mixskd.reporting.listing import LISTINGS

ABOUT = {"backbone_name": "wrn_10_1", "image_size": 8, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained classifiers, ``a`` and ``b``, as runs on 30 training, 12 validation and 20 test images."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 30, "val": 12, "test": 20}.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        (folder / name).mkdir()
        backbone = build_backbone("wrn_10_1", 3)
        backbone.head.weight.data.mul_(20)  # so that the logits are not all alike
        std = (0.2, 0.2, 0.2 + 0.1 * seed)
        save_model(
            backbone,
            folder / name / "model.safetensors",
            **{**ABOUT, "std": std},
            classes=["0", "1", "2"],  # type: ignore[arg-type]
        )
        (folder / name / "config.yaml").write_text(f"data: {{source: {folder / 'data.npz'}}}\nbackbone: wrn_10_1\n")
    return folder


def test_every_suite_is_written_to_the_runs_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(runs / "a"), str(runs / "b")]
    flags = ["--ood.data", "digits", "--corruption.images", "4", "--features.neighbours", "3", "--pgd.steps", "2"]
    assert main(["evaluate", *paths, "--suite", ",".join(SUITES), *flags, "--batch-size", "16"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 * len(SUITES)
    for name in SUITES:
        result = json.loads((runs / "a" / "evaluation" / f"{name}.json").read_text())
        assert (result["suite"], result["split"], result["run"], result["seed"]) == (name, "test", "a", 0)
        assert result["images"] == (4 if name == "corruption" else 20)
        assert result["protocol"]["text"]
        assert isinstance(result["headline"]["value"], float)
    assert json.loads((runs / "a/evaluation/calibration.json").read_text())["fitted_images"] == 12
    shared = [json.loads((runs / name / "evaluation/confidence.json").read_text()) for name in "ab"]
    assert shared[0]["models"] == shared[1]["models"]
    assert [r["headline"]["value"] for r in shared] == [r["models"][r["run"]]["predicted"]["mean"] for r in shared]
    scores = [mixskd.evaluate(path)["top1"] for path in paths]
    assert [r["models"][r["run"]]["top1"] for r in shared] == pytest.approx(scores)


def test_runs_with_the_same_data_share_data_and_outputs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    passes: list[int] = []

    def reading(path: Path, *given: Any, **named: Any) -> Any:
        read.append(path)
        return evaluation_data(path, *given, **named)

    def loading(path: Path) -> nn.Module:
        model = load_model(path)
        model.register_forward_hook(lambda module, given, logits: passes.append(len(logits)))
        return model

    for name in ("first", "second"):
        shutil.copytree(runs / "a", tmp_path / name, ignore=shutil.ignore_patterns("evaluation"))
    monkeypatch.setattr(session, "evaluation_data", reading)
    monkeypatch.setattr(session, "load_model", loading)
    results = mixskd.run_suites([tmp_path / "first", tmp_path / "second"], "accuracy,confidence,calibration")
    assert read == [tmp_path / "first"]
    assert sum(passes) == 2 * (20 + 12)  # each model sees the images of test and of val once
    first, second = (results[name]["accuracy"] for name in ("first", "second"))
    assert first["top1"] == second["top1"]


def test_all_runs_the_suites_that_can_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--split", "val", "--pgd.images", "3", "--json"]
    assert main(["evaluate", str(runs / "a"), "--suite", "all", *flags]) == 0
    results = json.loads(capsys.readouterr().out)["a"]
    assert results.keys() == SUITES.keys() - {"corruption", "confidence", "ood"}
    assert {result["split"] for result in results.values()} == {"val"}
    assert results["calibration"]["fitted_on"] == "half of val"


def test_images_of_another_size_are_resized(runs: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(6) % 2
    path = tmp_path / "other.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    results = mixskd.run_suites(
        [runs / "a"], ["features", "ood"], options={n: {"data": str(path)} for n in ("features", "ood")}
    )
    assert results["a"]["features"]["train_images"] == 6
    assert results["a"]["features"]["trained_on"] == str(path)
    assert results["a"]["ood"]["other_images"] == 6


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "--suite", "confidence"], "compares two or more runs"),
        (["a", "--suite", "ood"], "name one with --ood.data"),
        (["a", "--suite", "fgms"], "unknown suite 'fgms'; did you mean 'fgsm'"),
        (["a", "--suite", ","], "no suite is named"),
        (["a", "--suite", "fgsm", "--fgsm.epsilon", "1"], "did you mean 'fgsm.epsilons'"),
        (["a", "--suite", "fgsm", "--fgsm.epsilons", "much"], "fgsm.epsilons must be one or more numbers"),
        (["a", "--suite", "fgsm", "--pgd.steps", "1"], "options for the suite pgd, which is not run"),
        (["a", "--suite", "fgsm", "--fgs.steps", "1"], "did you mean 'fgsm'"),
        (["a", "--fgsm.epsilons", "1"], "name the suite with --suite"),
        (["a", "a", "--suite", "accuracy"], "named twice"),
        (["a", "nowhere", "--suite", "confidence"], "no model at"),
        (["a", "--suite", "accuracy", "--data", "digits"], "other classes"),
        (["a", "--suite", "accuracy", "--split", "tset"], "there is no split 'tset'; there are: train, val, test"),
        (["a", "c", "--suite", "confidence"], "c has other classes (2) than a (3)"),
    ],
)
def test_mistake_gives_one_line_of_error(
    argv: list[str], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "c" in argv and not (runs / "c").exists():
        (runs / "c").mkdir()
        save_model(build_backbone("wrn_10_1", 2), runs / "c" / "model.safetensors", **ABOUT, classes=["0", "1"])  # type: ignore[arg-type]
    monkeypatch.chdir(runs)
    assert main(["evaluate", *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_calibration_on_val_needs_a_val_split(runs: Path, tmp_path: Path) -> None:
    with np.load(runs / "data.npz") as arrays:
        np.savez(tmp_path / "two.npz", **{key: value for key, value in arrays.items() if "val" not in key})
    with pytest.raises(UserError, match="needs a validation split"):
        mixskd.run_suites(
            [runs / "a"], "calibration", options={"calibration": {"fit": "val"}}, data=str(tmp_path / "two.npz")
        )


def test_names_are_those_of_the_suites() -> None:
    assert {row["suite"] for row in LISTINGS["suites"]()} == set(SUITES)
    assert any(row["grid"] == "table4" for row in LISTINGS["grids"]())


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_evaluation_does_not_need_training_images(runs: Path, tmp_path: Path, kind: str) -> None:
    with np.load(runs / "data.npz") as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    source = tmp_path / "only.npz" if kind == "npz" else tmp_path / "only"
    if kind == "npz":
        np.savez(source, test_images=images, test_labels=labels)
    else:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (source / "test" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(source / "test" / str(label) / f"{number}.png")
    shutil.copytree(runs / "a", tmp_path / "a")
    result = mixskd.run_suites([tmp_path / "a"], "accuracy", data=str(source), device="cpu")["a"]["accuracy"]
    assert (result["images"], result["split"]) == (20, "test")
    assert mixskd.evaluate(tmp_path / "a", str(source))["top1"] == pytest.approx(result["top1"])
    with pytest.raises(UserError, match="has no split 'train'"):
        mixskd.run_suites([tmp_path / "a"], "features", data=str(source), device="cpu")
    with pytest.raises(UserError, match="no training images, only test"):
        mixskd.train(data=str(source), backbone="wrn_10_1", method="baseline", out=tmp_path / "x", run={"epochs": 1})
    assert not (tmp_path / "x").exists()
