"""Two gloo processes against one, and whole runs under torchrun."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import mixskd
from mixskd.config import DataConfig
from mixskd.config.build import read_experiment
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.errors import UserError
from mixskd.methods import METHODS
from mixskd.runtime.distributed import World
from mixskd.tasks.scoring import score_heads
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.classification import build_method, build_network
from tests.conftest import write_npz
from tests.processes import Fork, as_module, run_two, signalled, two
from tests.training import two_processes
from tests.training.two_processes import IN_ONE_MESSAGE, RECORDED

pytestmark = pytest.mark.long
STEP = 7  # of those that are killed: two steps after the first checkpoint


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``train`` of two short epochs of 16 steps, with a checkpoint at each fifth step."""
    npz = write_npz(tmp_path_factory.mktemp("data") / "toy.npz", train=64, test=31)
    words = ["train", "--data", str(npz), "--backbone", "wrn_10_1", "--batch-size", "4", "--epochs", "2"]
    words += ["--data.scale-schedule", "6,8"]
    more = {"checkpoint-every-steps": "5", "precision": "fp32", "all-heads": "true"}
    return [*words, *(word for name, value in more.items() for word in (f"--run.{name}", value))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, command: list[str]) -> Path:
    """The run that two processes carry out to its end."""
    folder = tmp_path_factory.mktemp("whole")
    run_two(folder, as_module, "mixskd", *command, "--out", str(folder / "run"))
    return folder / "run"


def check_same(run: Path, whole: Path) -> None:
    for name in ("metrics.csv", "model.safetensors"):
        assert (whole / name).read_bytes() == (run / name).read_bytes(), name


def test_two_processes_give_the_updates_of_one(tmp_path: Path) -> None:
    alone = Fork(tmp_path / "log", two_processes.main, tmp_path)
    run_two(tmp_path, two_processes.main, tmp_path)
    alone.succeed()
    one, two = (torch.load(tmp_path / f"states{size}.pt", weights_only=True) for size in (1, 2))
    others = {name + IN_ONE_MESSAGE for name in ("mixskd", "pskd")} | {
        name + RECORDED for name in ("mixskd", "pskd", "dlb")
    }
    assert one.keys() == two.keys() == {*METHODS, *others}
    for method, state in one.items():
        assert state.keys() == two[method].keys()
        for name, weights in state.items():
            assert torch.allclose(weights, two[method][name], rtol=0, atol=1e-12), (method, name)


def test_killed_run_of_two_processes_resumes_to_the_same_bits(whole: Path, command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with two(tmp_path, signalled, STEP, signal.SIGKILL, *command, "--out", str(out)) as (first, second):
        assert second.wait() == -signal.SIGKILL, second.said
        first.process.terminate()  # as torchrun does then
        assert first.wait() != 0, first.said
        assert "bug of mixskd" not in first.said
    assert (out / "checkpoint.pt").exists()
    assert not (out / "summary.json").exists()
    run_two(tmp_path, as_module, "mixskd", *command, "--out", str(out), "--resume")
    check_same(out, whole)


def test_every_test_image_is_scored_once(whole: Path) -> None:
    (*_, last) = csv.DictReader((whole / "metrics.csv").read_text().splitlines())
    alone = mixskd.evaluate(whole)
    assert alone["images"] == 31
    assert alone["top1"] == pytest.approx(float(last["test_top1"]), abs=1e-4)
    assert json.loads((whole / "summary.json").read_text())["processes"] == 2


def test_heads_of_two_processes_are_scored_with_the_saved_statistics(whole: Path) -> None:
    (*_, last) = csv.DictReader((whole / "metrics.csv").read_text().splitlines())
    experiment = read_experiment(whole / "config.yaml")
    data = load_data(experiment.data)
    network = build_network(experiment.backbone, len(data.classes), data.image_size)
    method = build_method(experiment.method, network, len(data.train), experiment.run.batch_size)
    method.load_state_dict(load_checkpoint(whole / "checkpoint.pt")["method"])
    device = torch.device("cpu")
    scores = score_heads(method, make_test_loader(data, device), device)
    assert {name: float(last[name]) for name in scores} == pytest.approx(scores)


def rank(*words: str) -> None:
    """``python -m mixskd``, which ends as a function does; the last of the first two is killed."""
    try:
        signalled(STEP, signal.SIGKILL, *words)
    except SystemExit as end:
        if end.code:
            raise


def torchrun(*words: str) -> None:
    """What ``torchrun --standalone --nproc-per-node 2 --max-restarts 1 -m mixskd`` does, with forks for its ranks."""
    config = LaunchConfig(
        1, 1, 2, run_id="test", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=1, start_method="fork"
    )
    elastic_launch(config, rank)(*words)


def test_torchrun_restarts_a_killed_rank(whole: Path, command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = Fork(tmp_path / "log", torchrun, *command, "--out", str(out))
    process.succeed()
    assert "(exitcode: " in process.said, "of the one that was killed, or of the one that it left alone"
    assert "bug of mixskd" not in process.said
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    check_same(out, whole)


def test_batches_of_two_processes_make_up_the_batch_of_one(npz: Path) -> None:
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
