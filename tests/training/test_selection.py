"""Weights are chosen on val, never on test; a run stops early on val, and all of that survives a resume."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mixskd
from mixskd.config import DataConfig, RunConfig
from mixskd.data import DataBundle, load_data
from mixskd.errors import UserError
from mixskd.tasks.classification import Classification
from mixskd.training.selection import Selection
from tests.interruption import StopsAt


@pytest.fixture
def with_val(npz: Path) -> Path:
    with np.load(npz) as file:
        arrays = {**file, "val_images": file["test_images"][::-1], "val_labels": file["test_labels"][::-1]}
    np.savez(npz, **arrays)
    return npz


def settings(**run: Any) -> dict[str, Any]:
    return {
        "backbone": "wrn_10_1", "method": "baseline", "optim": {"schedule": "cosine", "warmup_epochs": 0},
        "run": {"epochs": 3, "batch_size": 4, "progress": False, **run},
    }  # fmt: skip


def considered(
    scores: list[float], data: DataBundle, **run: Any
) -> tuple[Selection, nn.Linear, list[dict[str, float]]]:
    """A selection after epochs with these scores on val, whose weights are the epoch's number."""
    selection, model = Selection(RunConfig(**run), data, "top1"), nn.Linear(1, 1)
    rows = []
    for epoch, value in enumerate(scores, start=1):
        rows.append({"epoch": epoch, "val_top1": value})
        nn.init.constant_(model.weight, epoch)
        selection.consider(rows[-1], model)
    return selection, model, rows


def test_best_epoch_on_val_is_deployed(with_val: Path) -> None:
    data = load_data(DataConfig(source=str(with_val)))
    for keep, epoch in (("auto", 2), ("best", 2), ("last", 4)):
        selection, model, rows = considered([10.0, 40.0, 40.0, 30.0], data, keep=keep)
        assert selection.choose(rows, model)["epoch"] == epoch
        assert model.weight.item() == epoch


@pytest.mark.parametrize(
    ("scores", "patience", "stops"),
    [
        ([1, 2, 3], 2, False),
        ([3, 2, 1], 2, True),
        ([3, 2], 2, False),
        ([1, 3, 3, 3], 2, True),
        ([3, 1, 1, 1], 0, False),
    ],
)
def test_patience(scores: list[float], patience: int, stops: bool, with_val: Path) -> None:
    data = load_data(DataConfig(source=str(with_val)))
    selection, _, rows = considered(scores, data, patience=patience)
    assert selection.exhausted(rows) is stops


def test_run_with_val_is_scored_once_on_test(with_val: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = mixskd.train(data=str(with_val), out=str(out), **settings(precision="fp32"))
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert all("test_top1" not in row and row["val_top1"] for row in rows)
    chosen = next(row for row in rows if int(float(row["epoch"])) == summary["deployed"]["epoch"])
    assert float(chosen["val_top1"]) == max(float(row["val_top1"]) for row in rows)
    assert summary["deployed"]["selected_on"] == "val"
    assert summary["scores"]["val"]["top1"] == float(chosen["val_top1"])
    assert summary["best"]["split"] == "val"
    for split in ("val", "test"):
        again = mixskd.evaluate(out, split=split)
        assert again["top1"] == summary["scores"][split]["top1"]
        assert again["loss"] == pytest.approx(summary["scores"][split]["loss"])
    assert json.loads((out / "summary.json").read_text())["scores"] == summary["scores"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_epochs_are_scored_like_steps_and_deployed_weights_in_fp32(
    precision: str, with_val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, autocast = Classification.predict, list[bool]()

    def spy(self: Classification, model: nn.Module, images: Any) -> torch.Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return predict(self, model, images)

    monkeypatch.setattr(Classification, "predict", spy)
    out = tmp_path / "run"
    options = settings(precision=precision, epochs=2, all_heads=True)
    summary = mixskd.train(data=str(with_val), out=str(out), **options)
    rough = precision == "bf16"
    again = [False, False] if rough else [False]  # on val only where it differs, and on test
    assert autocast == [rough] * 2 + again
    assert summary["best"] == {
        "epoch": summary["deployed"]["epoch"], "split": "val",
        **{name: summary["scores"]["val"][name] for name in ("top1", "top5")},
    }  # fmt: skip
    monkeypatch.setattr(Classification, "predict", predict)
    assert mixskd.evaluate(out, split="val")["loss"] == pytest.approx(summary["scores"]["val"]["loss"], rel=1e-6)
    losses = [float(row["val_loss"]) for row in csv.DictReader((out / "metrics.csv").read_text().splitlines())]
    assert (summary["scores"]["val"]["loss"] in losses) == (not rough)


def test_patience_stops_a_run_without_progress(with_val: Path, tmp_path: Path) -> None:
    options = settings(epochs=9, patience=2)
    options["optim"]["lr"] = 1e-12  # nothing is learnt, so no epoch is better than the first by more than its noise
    summary = mixskd.train(data=str(with_val), out=str(tmp_path / "run"), **options)
    assert summary["stopped_early"]
    assert summary["epochs"] < 9
    assert summary["best"]["epoch"] <= summary["epochs"] - 2


def test_best_weights_survive_a_resume(with_val: Path, tmp_path: Path) -> None:
    mixskd.train(data=str(with_val), out=str(tmp_path / "whole"), **settings())
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(data=str(with_val), out=str(tmp_path / "cut"), listeners=[StopsAt(8)], **settings())
    mixskd.train(out=str(tmp_path / "cut"), resume=True)  # its settings are in the folder
    for name in ("metrics.csv", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_last_epoch_is_deployed_without_val(npz: Path, tmp_path: Path) -> None:
    summary = mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings())
    assert summary["deployed"] == {"epoch": 3, "selected_on": None}
    assert summary["scores"]["test"]["top1"] == summary["last"]["top1"]


def test_overwrite_starts_a_run_again(npz: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "run", settings(epochs=1)
    mixskd.train(data=str(npz), out=str(out), **options)
    options["optim"]["lr"] = 0.01
    with pytest.raises(UserError, match=r"optim\.lr 0\.1 -> 0\.01.*--overwrite"):
        mixskd.train(data=str(npz), out=str(out), **options)
    with pytest.raises(UserError, match="give only one of them"):
        mixskd.train(data=str(npz), out=str(out), resume=True, overwrite=True)
    first = torch.load(out / "checkpoint.pt", weights_only=True)
    mixskd.train(data=str(npz), out=str(out), overwrite=True, **options)
    assert first["method"] is not None
    assert "lr: 0.01" in (out / "config.yaml").read_text()


def test_run_without_a_checkpoint_is_replaced(npz: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "run", settings(epochs=3)
    options["optim"]["lr"] = 1e14
    with pytest.raises(UserError, match="no checkpoint was written yet; start again with --overwrite"):
        mixskd.train(data=str(npz), out=str(out), **options)
    options["optim"]["lr"] = 0.01
    assert mixskd.train(data=str(npz), out=str(out), **options)["epochs"] == 3
