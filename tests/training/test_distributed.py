"""Two gloo processes against one, and whole runs under torchrun."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mixskd
from mixskd.config import DataConfig, from_dict, read_yaml
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.plan import BatchPlan
from mixskd.distributed import World
from mixskd.errors import UserError
from mixskd.evaluation.scoring import score_heads
from mixskd.experiment import build_method, build_network
from mixskd.methods import METHODS
from mixskd.needs import DataNeeds
from mixskd.training.checkpoint import load_checkpoint
from tests.training.two_processes import IN_ONE_MESSAGE

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["-m", "mixskd", "train", "--backbone", "wrn_10_1", "--batch-size", "64", "--epochs", "2"]
TRAIN += ["--run.checkpoint-every-steps", "5", "--run.precision", "fp32"]


def torchrun(*command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TORCHRUN, *options, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return out


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("two_processes.py"))
    finish(torchrun(script, str(tmp_path / "two.pt")))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    subprocess.run([sys.executable, script, str(tmp_path / "one.pt")], check=True, env=environment)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys() == {*METHODS, *(name + IN_ONE_MESSAGE for name in ("mixskd", "pskd"))}
    for method, state in one.items():
        assert state.keys() == two[method].keys()
        for name, weights in state.items():
            assert torch.allclose(weights, two[method][name], rtol=0, atol=1e-12), (method, name)


def test_a_killed_run_of_two_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(torchrun(*TRAIN, "--out", str(whole)))
    process = torchrun(*TRAIN, "--out", str(killed))
    while not (killed / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)  # one rank dies; torchrun stops the other
    process.communicate(timeout=100)
    assert process.returncode != 0
    finish(torchrun(*TRAIN, "--out", str(killed), "--resume"))
    for name in ("metrics.csv", "model.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    # every test image was counted once
    (*_, last) = csv.DictReader((whole / "metrics.csv").read_text().splitlines())
    assert mixskd.evaluate(whole)["top1"] == pytest.approx(float(last["test_top1"]), abs=1e-4)
    assert json.loads((whole / "summary.json").read_text())["processes"] == 2


def test_heads_of_two_are_scored_with_the_statistics_that_are_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    finish(torchrun(*TRAIN, "--run.all-heads", "true", "--out", str(out)))
    (*_, last) = csv.DictReader((out / "metrics.csv").read_text().splitlines())
    experiment = from_dict(read_yaml(out / "config.yaml"))
    data = load_data(experiment.data)
    network = build_network(experiment.backbone, len(data.classes), data.image_size)
    method = build_method(experiment.method, network, len(data.train), experiment.run.batch_size)
    method.load_state_dict(load_checkpoint(out / "checkpoint.pt")["method"])
    device = torch.device("cpu")
    scores = score_heads(method, make_test_loader(data, device), device)
    assert {name: float(last[name]) for name in scores} == pytest.approx(scores)


def test_torchrun_restarts_a_killed_rank(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = torchrun(*TRAIN, "--out", str(out), options=("--max-restarts", "1"))
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    finish(process)
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_parts_of_a_batch_are_the_batch(npz: Path) -> None:
    data = load_data(DataConfig(source=str(npz)))
    cpu = torch.device("cpu")
    whole, *parts = (
        list(make_train_loader(data, DataConfig(augment="cutout"), 6, cpu, 0, DataNeeds(partners=2), world).epoch(3))
        for world in (World(), World(0, 2), World(1, 2))
    )
    for one, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(one.labels, torch.cat([first.labels, second.labels]))
        assert torch.equal(one.images, torch.cat([first.images, second.images]))
    with pytest.raises(UserError, match="2 processes cannot share a batch of 5"):
        BatchPlan(np.arange(12), 5, 0, DataNeeds(), World(0, 2))
