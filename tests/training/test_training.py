"""The schedule, exact resume after SIGKILL and SIGTERM, divergence, and files that are refused."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mixskd
from mixskd.config import OptimConfig
from mixskd.errors import UserError
from mixskd.runtime.precision import choose_device, device_name
from mixskd.training.checkpoint import load_checkpoint, save_checkpoint
from mixskd.training.listeners import Listener
from mixskd.training.schedule import learning_rate, progress, remarks
from mixskd.training.trainer import Trainer
from tests.conftest import write_npz
from tests.interruption import StopsAt
from tests.processes import Fork, signalled
from tests.processes import mixskd as mixskd_command


def test_step_schedule() -> None:
    def rate(epoch: int) -> float:
        return learning_rate(OptimConfig(), epoch * 10, 10, 205)

    assert learning_rate(OptimConfig(), 0, 10, 205) == pytest.approx(0.1 / 50)
    assert learning_rate(OptimConfig(), 49, 10, 205) == pytest.approx(0.1)
    rates = {4: 0.1 * 41 / 50, 5: 0.1, 104: 0.1, 105: 0.01, 154: 0.01, 155: 0.001, 204: 0.001}
    for epoch, expected in rates.items():
        assert rate(epoch) == pytest.approx(expected), epoch


def test_cosine_schedule() -> None:
    optim = OptimConfig(schedule="cosine")
    assert learning_rate(optim, 5 * 7, 7, 305) == pytest.approx(0.1)
    assert learning_rate(optim, 155 * 7, 7, 305) == pytest.approx(0.05)
    assert 0 < learning_rate(optim, 304 * 7, 7, 305) < 1e-5


def test_schedule_starts_again_at_each_restart() -> None:
    cosine = OptimConfig(schedule="cosine", restarts=(6, 8))
    parts = [OptimConfig(schedule="cosine"), *2 * [OptimConfig(schedule="cosine", warmup_epochs=0)]]
    for step in range(120):
        part, begin, epochs = next(x for x in ((2, 8, 4), (1, 6, 2), (0, 0, 6)) if step >= 10 * x[1])
        expected = learning_rate(parts[part], step - 10 * begin, 10, epochs)
        assert learning_rate(cosine, step, 10, 12) == expected
    steps = OptimConfig(warmup_epochs=0, milestones=(3,), restarts=(6,))
    assert [learning_rate(steps, epoch, 1, 8) for epoch in range(8)] == pytest.approx(
        [0.1] * 3 + [0.01] * 3 + [0.1, 0.01]
    )
    assert [progress(cosine, epoch, 12) for epoch in (0, 2, 5, 6, 11)] == pytest.approx([1 / 6, 0.5, 1, 1, 1])


@pytest.mark.parametrize("more", [{"more_epochs": 2}, {"resume": True, "epochs": 4}])
def test_finished_run_goes_on_and_its_continuation_resumes_exactly(
    more: dict[str, Any], tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(out: str, epochs: int = 2, **arguments: Any) -> dict[str, Any]:
        return mixskd.train(data=str(npz), out=str(tmp_path / out), **settings(epochs=epochs), **arguments)

    assert act("whole")["epochs"] == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    before = (tmp_path / "whole" / "metrics.csv").read_text()
    act("whole", dry_run=True, **more)
    assert (tmp_path / "whole" / "summary.json").exists()
    summary = act("whole", **more)
    assert (summary["epochs"], summary["updates"], summary["images"]) == (4, 12, 48)
    assert "the schedule starts again after epoch 2" in summary["notes"]
    rows = (tmp_path / "whole" / "metrics.csv").read_text()
    assert rows.startswith(before)
    assert [row["lr"] for row in csv.DictReader(rows.splitlines())][::2] == ["0.1", "0.1"]
    # stopped before the first new checkpoint, and in the last epoch
    for step in (1, 4):
        monkeypatch.setattr(Trainer, "update", interrupted(step, save=step == 4))
        with pytest.raises(KeyboardInterrupt):
            act("stopped", **(more if step == 1 else {"resume": True, "epochs": 4}))
        monkeypatch.undo()
        with pytest.raises(UserError, match="no finished run"):
            act("stopped", more_epochs=1)
    said: list[str] = []
    listener = Listener()
    listener.start = lambda info: said.extend(info.description)  # type: ignore[method-assign]
    act("stopped", resume=True, epochs=4, listeners=[listener])
    assert said[-1] == "resumed after step 9 of 12, in epoch 4 of 4, from checkpoint.pt"
    for name in ("model.safetensors", "metrics.csv", "config.yaml"):
        assert (tmp_path / "stopped" / name).read_bytes().replace(b"stopped", b"whole") == (
            tmp_path / "whole" / name
        ).read_bytes()


def interrupted(steps: int, *, save: bool) -> Callable[..., None]:
    """``Trainer.update`` that ends after so many steps, with a checkpoint before the last one if asked."""
    update, left = Trainer.update, itertools.count(1)

    def act(self: Trainer, *arguments: Any) -> None:
        number = next(left)
        if number == steps:
            if save:
                self.save()
            raise KeyboardInterrupt
        update(self, *arguments)

    return act


def test_continuation_is_refused_for_fewer_epochs_and_other_settings(tmp_path: Path, npz: Path) -> None:
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(epochs=2))
    with pytest.raises(UserError, match=r"run\.epochs 2 -> 1"):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), resume=True, **settings(epochs=1))
    with pytest.raises(UserError, match=r"run\.seed 0 -> 1"):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), more_epochs=2, **settings(seed=1))


def test_probable_mistakes_in_a_schedule_are_warned_about() -> None:
    assert remarks(OptimConfig(), 205) == []
    assert "never falls in 60 epochs" in remarks(OptimConfig(), 60)[0]
    assert "still warming up after 3 epochs" in remarks(OptimConfig(), 3)[0]
    assert remarks(OptimConfig(schedule="cosine", warmup_epochs=2), 3) == []


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """``train`` with MixSKD on images for 16 short steps an epoch, and a checkpoint at each fifth."""
    write_npz(tmp_path / "toy.npz", train=64)
    words = ["train", "--data", str(tmp_path / "toy.npz"), "--backbone", "wrn_10_1", "--batch-size", "4"]
    return [*words, "--epochs", "2", "--run.checkpoint-every-steps", "5"]


@pytest.mark.long
def test_resume_is_exact_after_sigkill_and_sigterm(tmp_path: Path, command: list[str]) -> None:
    whole, killed, stopped = (tmp_path / name for name in ("whole", "killed", "stopped"))
    run = mixskd_command(tmp_path / "whole.log", *command, "--out", str(whole))
    # in the second epoch, two steps after the third checkpoint
    for out, number, code in (
        (killed, signal.SIGKILL, -signal.SIGKILL),
        (stopped, signal.SIGTERM, 128 + signal.SIGTERM),
    ):
        end = Fork(tmp_path / f"{out.name}.log", signalled, 17, number, *command, "--out", str(out))
        assert end.wait() == code, end.said
    refused = mixskd_command(tmp_path / "log", *command, "--out", str(stopped), "--resume", "--optim.lr", "0.05")
    assert refused.wait() == 2
    assert "optim.lr 0.1 -> 0.05" in refused.said
    run.succeed()
    for out in (killed, stopped):
        assert not (out / "summary.json").exists()
        mixskd_command(tmp_path / "log", *command, "--out", str(out), "--resume").succeed()
        assert (whole / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert (whole / "metrics.csv").read_bytes() == (killed / "metrics.csv").read_bytes()
    rows = list(csv.DictReader((whole / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]


def settings(**run: object) -> dict:
    return {
        "backbone": "wrn_10_1", "method": "mixskd", "optim": {"schedule": "cosine", "warmup_epochs": 0},
        "run": {"epochs": 1, "batch_size": 4, "progress": False, **run},
    }  # fmt: skip


def test_run_writes_its_files(tmp_path: Path, npz: Path) -> None:
    out = tmp_path / "run"
    summary = mixskd.train(data=str(npz), out=str(out), **settings(accumulate=2, epochs=2))
    assert {f.name for f in out.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoint.pt", "model.safetensors", "summary.json",
    }  # fmt: skip
    written = json.loads((out / "summary.json").read_text())
    assert {name: value for name, value in written.items() if name != "digest"}.items() <= summary.items()
    assert summary["updates"] == 6
    assert summary["images"] == 24
    assert summary["device"] == device_name(choose_device("auto"))
    with pytest.raises(UserError, match="already holds this run"):
        mixskd.train(data=str(npz), out=str(out), **settings(accumulate=2, epochs=2))
    with pytest.raises(UserError, match=r"run\.seed 0 -> 1"):
        mixskd.train(data=str(npz), out=str(out), **settings(accumulate=2, epochs=2, seed=1))


def test_resume_refuses_other_images(tmp_path: Path, npz: Path) -> None:
    out, options = tmp_path / "run", settings(epochs=2)
    mixskd.train(data=str(npz), out=str(out), **options)
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    with np.load(npz) as file:
        arrays = dict(file)
    images, labels = arrays["train_images"], arrays["train_labels"]
    for change, message in (
        (
            {"train_images": images[:9], "train_labels": labels[:9]},
            "9 training and 6 test images of 3 classes now, 12",
        ),
        ({"train_labels": labels[::-1]}, "the same numbers, but other images before"),
    ):
        np.savez(npz, **{**arrays, **change})
        with pytest.raises(UserError, match=message):
            mixskd.train(data=str(npz), out=str(out), resume=True, **options)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == files
    np.savez(npz, **arrays)
    mixskd.train(data=str(npz), out=str(out), resume=True, **options)


def test_failed_start_keeps_an_existing_folder(tmp_path: Path, npz: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.1.tmp").touch()  # of a write that was killed
    with pytest.raises(UserError, match="larger than the training set"):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(batch_size=500))
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".config.yaml.1.tmp"]
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings())


def test_evaluation_interval(tmp_path: Path, npz: Path) -> None:
    options = settings(epochs=3, evaluate_every=2, checkpoint_every_epochs=2)
    summary = mixskd.train(data=str(npz), out=str(tmp_path / "run"), **options)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [bool(row["test_top1"]) for row in rows] == [False, True, True]
    assert all(row["train_loss"] for row in rows)
    assert summary["last"]["epoch"] == 3


def test_moving_average_is_deployed(tmp_path: Path, npz: Path) -> None:
    options = settings(precision="fp32")
    options["optim"]["ema"] = 0.9
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **options)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    deployed = mixskd.load(tmp_path / "run").export_state_dict()
    assert torch.equal(deployed["conv1.weight"], state["ema"]["module.stages.0.conv1.weight"])
    assert not torch.equal(deployed["conv1.weight"], state["method"]["backbone.stages.0.conv1.weight"])


def test_resume_with_another_number_of_processes_gives_a_note(tmp_path: Path, npz: Path) -> None:
    out, options = tmp_path / "run", settings()
    assert mixskd.train(data=str(npz), out=str(out), **options)["notes"] == []
    state = load_checkpoint(out / "checkpoint.pt")
    save_checkpoint(out / "checkpoint.pt", {**state, "sums": 2 * state["sums"]})
    (note,) = mixskd.train(data=str(npz), out=str(out), resume=True, **options)["notes"]
    assert note.startswith("a run of 2 processes is resumed by 1")


def test_diverged_run_stops_with_step_and_term(tmp_path: Path, npz: Path) -> None:
    options = settings(epochs=3)
    options["optim"]["lr"] = 1e14
    with pytest.raises(
        UserError, match=r"the loss term '\w+' became NaN or infinite at step \d+; no checkpoint was written yet"
    ):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), **options)


def test_diverged_run_stops_within_its_epoch(tmp_path: Path, npz: Path) -> None:
    options, counting = settings(epochs=1, batch_size=2, log_every=3), StopsAt()
    options["optim"]["lr"] = 1e14
    with pytest.raises(UserError, match="became NaN or infinite at step"):
        mixskd.train(data=str(npz), out=str(tmp_path / "run"), listeners=[counting], **options)
    assert counting.steps == 3  # of six


def test_checkpoints_execute_nothing_and_refuse_other_files(tmp_path: Path) -> None:
    path, flag = tmp_path / "checkpoint.pt", tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(flag),)

    torch.save({"format": "mixskd-checkpoint-1", "x": Evil()}, path)
    with pytest.raises(UserError, match="not a checkpoint of mixskd"):
        load_checkpoint(path)
    assert not flag.exists()
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="is not a checkpoint of mixskd"):
        load_checkpoint(path)
    save_checkpoint(path, {"a": torch.zeros(200)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="corrupt"):
        load_checkpoint(path)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    from mixskd import MixSKD, build_backbone

    method = MixSKD(build_backbone("wrn_10_1", 5))
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    draws = method.draw(images)
    expected = method(images, labels, draws)["loss"].item()
    on_gpu = type(draws)(draws.lam.cuda(), draws.permutation.cuda())
    got = method.cuda()(images.cuda(), labels.cuda(), on_gpu)["loss"].item()
    assert got == pytest.approx(expected, rel=1e-3)


def test_metrics_file_is_the_same_after_a_kill_and_with_other_checkpoints(tmp_path: Path, npz: Path) -> None:
    def options(every: int, log_every: int = 20) -> dict:
        return settings(epochs=2, batch_size=2, checkpoint_every_steps=every, log_every=log_every)

    for name, every, log_every in (("whole", 0, 20), ("saved", 3, 20), ("logged", 0, 2)):
        mixskd.train(data=str(npz), out=str(tmp_path / name), **options(every, log_every))
    with pytest.raises(KeyboardInterrupt):  # in the middle of the second epoch, one step after a checkpoint
        mixskd.train(data=str(npz), out=str(tmp_path / "cut"), listeners=[StopsAt(10)], **options(3))
    mixskd.train(data=str(npz), out=str(tmp_path / "cut"), resume=True, **options(3))
    whole, *others = ((tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "saved", "logged", "cut"))
    assert others == [whole] * 3


def cut_off(device: str, tmp_path: Path, npz: Path) -> list[dict[str, torch.Tensor]]:
    """The end of a run of 18 steps, and of one that died after its 13th and went on from its 12th."""
    options = settings(epochs=6, device=device, deterministic=True, checkpoint_every_steps=4)
    options["data"] = {"source": str(npz), "scale_schedule": [6, 8]}
    mixskd.train(out=str(tmp_path / "whole"), **options)
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(out=str(tmp_path / "cut"), listeners=[StopsAt(13)], **options)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["position"]["step"] == 12
    mixskd.train(out=str(tmp_path / "cut"), resume=True, **options)
    return [load_checkpoint(tmp_path / run / "checkpoint.pt")["method"] for run in ("whole", "cut")]


def test_resume_within_an_epoch_is_exact(tmp_path: Path, npz: Path) -> None:
    whole, cut = cut_off("cpu", tmp_path, npz)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.gpu
def test_resume_is_exact_on_cuda_where_deterministic(tmp_path: Path, npz: Path) -> None:
    try:
        whole, cut = cut_off("cuda", tmp_path, npz)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_all_heads_and_tensorboard(tmp_path: Path, npz: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    mixskd.train(data=str(npz), out=str(out), **settings(all_heads=True, tensorboard=True))
    (row,) = csv.DictReader((out / "metrics.csv").read_text().splitlines())
    heads = [float(row[f"test_{name}_top1"]) for name in ("branch1", "branch2", "backbone")]
    assert heads[-1] == pytest.approx(float(row["test_top1"]))
    assert float(row["test_max_head_top1"]) == max(heads)
    assert list((out / "tensorboard").glob("events*"))
