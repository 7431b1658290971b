"""Checkpoints that a thread writes while the training goes on, as on a GPU."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import mixskd
from mixskd.errors import UserError
from mixskd.training import trainer
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.checkpoint_writer import CheckpointWriter
from tests.config.test_records import state
from tests.processes import Fork
from tests.training.starts import photos

SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "mixskd",
    "run": {"epochs": 2, "batch_size": 4, "progress": False, "checkpoint_every_steps": 2},
}  # fmt: skip


def write_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs on the CPU write their checkpoints as runs on a GPU do."""
    monkeypatch.setattr(trainer, "CheckpointWriter", lambda path, *, beside: CheckpointWriter(path, beside=True))


def results(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("metrics.csv", "model.safetensors")]


def killed_while_writing(data: str, out: str) -> None:
    """Train until the third checkpoint is being written and a further step is taken; then the process is killed."""
    patch, sync = pytest.MonkeyPatch(), os.fsync
    write_beside(patch)
    writes, further_step = 0, threading.Event()

    def sync_or_die(file: int) -> None:
        nonlocal writes
        if threading.current_thread() is not threading.main_thread():
            writes += 1
            if writes == 3:
                further_step.clear()
                assert further_step.wait(60)
                os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    patch.setattr(os, "fsync", sync_or_die)
    register_optimizer_step_post_hook(lambda *_: further_step.set())
    mixskd.train(data=data, out=out, **SETTINGS)


def test_run_killed_while_a_checkpoint_is_written_resumes_to_the_same_bits(tmp_path: Path, npz: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fork = Fork(tmp_path / "log", killed_while_writing, str(npz), str(cut))
    mixskd.train(data=str(npz), out=str(whole), **SETTINGS)
    assert fork.wait() == -signal.SIGKILL, fork.said
    assert load_checkpoint(cut / "checkpoint.pt")["position"]["step"] == 3, "the checkpoint of step 4 was not renamed"
    mixskd.train(data=str(npz), out=str(cut), resume=True, **SETTINGS)
    assert results(cut) == results(whole)
    assert not list(cut.glob(".*")), "a temporary file is left"


def test_data_workers_start_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photos(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1})
    data, run = {"source": str(source), "image_size": 32, "workers": 1}, {"checkpoint_every_steps": 1}
    options = {**SETTINGS, "data": data, "run": {**SETTINGS["run"], **run}}
    mixskd.train(out=str(tmp_path / "usual"), **options)
    sync = os.fsync

    def slow(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.3)
        sync(file)

    monkeypatch.setattr(os, "fsync", slow)
    write_beside(monkeypatch)
    mixskd.train(out=str(tmp_path / "beside"), **options)
    assert results(tmp_path / "beside") == results(tmp_path / "usual")


def test_checkpoint_holds_the_state_at_its_step_and_the_copy_is_reused(tmp_path: Path) -> None:
    writer, weight = CheckpointWriter(tmp_path / "c.pt", beside=True), torch.randn(2, 3, 4, 4)
    live = {"method": {"w": weight.to(memory_format=torch.channels_last)}}
    places = []
    for _ in range(2):
        expected = live["method"]["w"].clone()
        held = writer.held(live)
        live["method"]["w"].add_(1)
        writer.write({**state(), **held})
        writer.wait()
        assert torch.equal(load_checkpoint(tmp_path / "c.pt")["method"]["w"], expected)
        assert held["method"]["w"].stride() == live["method"]["w"].stride()
        places.append(held["method"]["w"].data_ptr())
    assert places[0] == places[1]
    writer.close()


def test_error_of_the_thread_is_raised_once_by_the_next_call(tmp_path: Path) -> None:
    folder = tmp_path / "c.pt"
    folder.mkdir()
    writer = CheckpointWriter(folder, beside=True)
    for call in (writer.wait, lambda: writer.held({}), lambda: writer.write(state())):
        writer.write(state())
        with pytest.raises(UserError, match="it is a folder"):
            call()
        writer.wait()
    writer.close()


def test_cpu_without_a_thread_writes_at_once(tmp_path: Path) -> None:
    writer, live = CheckpointWriter(tmp_path / "c.pt", beside=False), state()
    assert writer.held(live) is live, "no copy is made"
    writer.write(live)
    assert load_checkpoint(tmp_path / "c.pt")["position"] == live["position"]
