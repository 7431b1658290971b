"""Listeners are told what a run does, in order; the services write where they should, without a network."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import mixskd
from mixskd.training.listeners import ProgressBar, RunInfo, StepInfo
from mixskd.training.listeners.progress_bar import sparkline
from mixskd.training.listeners.tensorboard import TensorBoard
from tests.interruption import StopsAt


def settings(**run: Any) -> dict[str, Any]:
    return {
        "backbone": "wrn_10_1", "method": "mixskd", "optim": {"schedule": "cosine", "warmup_epochs": 0},
        "run": {"epochs": 2, "batch_size": 6, "progress": False, "log_every": 1, **run},
    }  # fmt: skip


class Told(mixskd.Listener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def start(self, info: RunInfo) -> None:
        self.calls.append(("start", info.step))

    def step(self, info: StepInfo) -> None:
        losses = info.losses()
        self.calls.append(("step", info.step))
        assert losses["loss"] > 0

    def epoch(self, row: Any) -> None:
        self.calls.append(("epoch", row["epoch"]))

    def end(self, summary: Any) -> None:
        self.calls.append(("end", summary["updates"]))

    def close(self) -> None:
        self.calls.append(("close", None))


def test_listener_is_called_in_order(npz: Path, tmp_path: Path) -> None:
    told = Told()
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), listeners=[told], **settings())
    assert told.calls == [
        ("start", 0), ("step", 1), ("step", 2), ("epoch", 1), ("step", 3), ("step", 4), ("epoch", 2), ("end", 4),
        ("close", None),
    ]  # fmt: skip


def test_screen_shows_the_description_of_the_run(npz: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    bar = ProgressBar(Console(file=text, width=80))
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), listeners=[bar], **settings())
    said = " ".join(text.getvalue().split())
    for part in (
        "3 classes, 12 train, 6 test images of 8 px", "images a class: 4 (c) to 4 (a)", "network: wrn_10_1, 77,",
        "method: mixskd; optimizer steps: 2 epochs x 2 = 4, of 6 images each", "device: ", "epoch 2/2 loss",
        "test top-1",
    ):  # fmt: skip
        assert part in said, part


def test_tensorboard_shows_no_step_twice_after_a_resume(npz: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(data=str(npz), out=out, listeners=[TensorBoard(), StopsAt(4)], **settings(tensorboard=False))
    mixskd.train(data=str(npz), out=out, resume=True, **settings(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]
    assert events.Scalars("final/test.top1")
    pictures = events.Images("mixes")
    assert [picture.step for picture in pictures] == [2, 4]
    with Image.open(io.BytesIO(pictures[0].encoded_image_string)) as image:
        assert np.asarray(image).std() > 10


def test_examples_do_not_change_a_run(npz: Path, tmp_path: Path) -> None:
    class Looking(mixskd.Listener):
        seen: ClassVar[list[Any]] = []

        def start(self, info: RunInfo) -> None:
            self.look = info.examples

        def epoch(self, row: Any) -> None:
            assert self.look is not None
            self.seen.append(self.look())

    runs = [
        mixskd.train(data=str(npz), out=str(tmp_path / str(i)), listeners=listeners, **settings(precision="fp32"))
        for i, listeners in enumerate(([], [Looking()]))
    ]
    assert runs[0]["scores"] == runs[1]["scores"]
    rows = [(tmp_path / str(i) / "metrics.csv").read_bytes() for i in range(2)]
    assert rows[0] == rows[1]
    first, last = Looking.seen
    assert list(first.columns) == ["image", "mix 1", "mix 2"]
    images, texts = first.columns["image"]
    mixed, said = first.columns["mix 1"]
    (own, a), (other, b) = (line.split() for line in said[0].splitlines()[:2])
    names = [text.splitlines()[0] for text in texts]
    assert (a, names[0]) == (names[0], "a")
    candidates = [float(own) * images[0] + float(other) * x for x, name in zip(images, names, strict=True) if name == b]
    assert min((mixed[0] - x).abs().max() for x in candidates) < 0.05  # shares have two digits
    assert torch.equal(mixed, last.columns["mix 1"][0])
    assert all("-> " in text and " % " in text for text in said)


def test_curves_are_drawn_on_request(npz: Path, tmp_path: Path) -> None:
    assert sparkline([0, 3.5, 7, float("nan")]) == "▁▅█?"
    assert sparkline([2.0, 2.0], plain=True) == "__"
    for curve, wanted in ((0, 0), (3, 2)):
        text = io.StringIO()
        bar = ProgressBar(Console(file=text, width=80))
        out = str(tmp_path / str(curve))
        mixskd.train(data=str(npz), out=out, listeners=[bar], **settings(epochs=4, curve=curve))
        lines = [line for line in text.getvalue().splitlines() if " to " in line and "▁" in line]
        assert len(lines) == wanted
    assert len(lines[0].split()[2]) == 3
    rows = list(csv.DictReader((tmp_path / "3" / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    assert lines[0].endswith(f"{float(rows[1]['train_loss']):.4g} to {float(rows[3]['train_loss']):.4g}")


def test_wandb_stores_an_offline_run(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(wandb=True))
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 200  # wandb's own process writes it out after the run
    while b"train/loss" not in (content := written.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"train/loss" in content
    assert b"final/test.top1" in content


def test_mlflow_stores_a_local_run(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(mlflow=True))
    client = mlflow.MlflowClient()
    run = client.get_run((tmp_path / "run" / "mlflow_run.txt").read_text().strip())
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "mixskd"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == [2, 4]
    assert "final/test.top1" in run.data.metrics
