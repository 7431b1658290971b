"""Listeners are told what a run does, in order; the services write where they should, without a network."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mixskd
from mixskd.errors import UserError
from mixskd.training.listeners import ProgressBar, RunInfo, StepInfo
from mixskd.training.listeners.tensorboard import TensorBoard


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


def test_a_listener_is_told_everything_in_order(npz: Path, tmp_path: Path) -> None:
    told = Told()
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), listeners=[told], **settings())
    assert told.calls == [
        ("start", 0), ("step", 1), ("step", 2), ("epoch", 1), ("step", 3), ("step", 4), ("epoch", 2), ("end", 4),
        ("close", None),
    ]  # fmt: skip


def test_the_screen_says_what_is_trained(npz: Path, tmp_path: Path) -> None:
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

    class Dying(mixskd.Listener):
        def step(self, info: StepInfo) -> None:
            if info.step == 4:
                raise KeyboardInterrupt

    out = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(data=str(npz), out=out, listeners=[TensorBoard(), Dying()], **settings(tensorboard=False))
    mixskd.train(data=str(npz), out=out, resume=True, **settings(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]
    assert events.Scalars("final/test.top1")


def test_wandb_keeps_a_run_here(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(wandb=True))
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 20  # wandb's own process writes it out after the run
    while b"train/loss" not in (content := written.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"train/loss" in content
    assert b"final/test.top1" in content


def test_mlflow_keeps_a_run_here(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("service", ["tensorboard", "wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_one_line(
    service: str, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"run\.{service} needs {service}: pip install 'mixskd\[{service}\]'"):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(**{service: True}))
