"""``--dry-run`` refuses what a run refuses, with the same line; and neither leaves anything behind."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixskd
from mixskd.backbones import BACKBONES
from mixskd.cli.main import main
from mixskd.errors import UserError
from mixskd.training.listeners import Listener, RunInfo
from mixskd.training.run_lock import run_lock
from tests.conftest import write_npz
from tests.training.starts import PHOTOS, SPLIT, STARTS, USUAL, Start, broken, odd, photos

SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "baseline", "run": {"epochs": 1, "batch_size": 4, "progress": False},
}  # fmt: skip


def command(flags: dict[str, str | None], *more: str) -> list[str]:
    words = [word for name, value in {**USUAL, **flags}.items() for word in (f"--{name}", value) if word is not None]
    return ["train", *words, "--run.progress", "false", *more]


def content(folder: Path) -> dict[str, bytes | None]:
    """All files under ``folder`` with what they hold, and all folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy data, where the commands are given."""
    write_npz(tmp_path / "toy.npz")
    for make in (odd, broken):
        monkeypatch.setitem(BACKBONES, make.__name__, make)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(argv: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that ends the command ``argv``, with ``--dry-run`` and without; it changes nothing in ``place``."""
    before, lines = content(place), []
    for more in (["--dry-run"], []):
        assert main([*argv, *more]) == 2, capsys.readouterr()
        said = capsys.readouterr()
        assert said.out == ""
        assert content(place) == before
        lines.append(said.err)
    assert lines[0] == lines[1]
    assert lines[0].count("\n") == 1
    return lines[0]


@pytest.mark.parametrize("start", STARTS, ids=[start.name for start in STARTS])
def test_dry_run_and_train_refuse_the_same_starts_without_changes(
    start: Start, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start.make(place)
    capsys.readouterr()
    assert start.says in refusal(command(start.flags), place, capsys)


def test_names_of_the_starts_are_unique() -> None:
    assert len({start.name for start in STARTS}) == len(STARTS)


@pytest.mark.parametrize("flags", [{}, PHOTOS, {"method": "mixskd"}, {"method": "dlb"}], ids=str)
def test_dry_run_describes_a_new_run(
    flags: dict[str, str | None], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(place, SPLIT, 32)
    before = content(place)
    assert main(command({**flags, "out": "runs/new/run"}, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "network: wrn_10_1" in said
    several = re.search(r" = (\d+), of 4 images each", said)
    assert several is not None
    assert bool(re.search(r"time: about \S+ (min|s) for \d+ steps", said)) == (int(several[1]) > 1)
    assert ("cost of training" in said) == (flags.get("method") in ("mixskd", "dlb"))
    assert "out: runs/new/run; the run starts from the beginning" in said
    assert content(place) == before


def test_dry_run_of_a_resumed_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = {**SETTINGS["run"], "epochs": 2}
    mixskd.train(data="toy.npz", out="run", **{**SETTINGS, "run": run})
    before = content(place)
    plan = mixskd.train(out="run", resume=True, dry_run=True)["plan"]
    assert plan[-1] == "out: run; the run continues from step 6"
    plan = mixskd.train(data="toy.npz", out="run", overwrite=True, dry_run=True, **SETTINGS)["plan"]
    assert plan[-1].endswith("the run starts from the beginning, and the run that is there now is removed")
    assert content(place) == before
    (place / "run" / "checkpoint.pt").write_bytes(b"damaged")
    assert "run/checkpoint.pt is corrupt" in refusal(["train", "--resume", "--out", "run"], place, capsys)


def test_dry_run_refuses_other_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixskd.train(data="toy.npz", out="run", **SETTINGS)
    with np.load("toy.npz") as file:
        arrays = {**file, "train_labels": (file["train_labels"] + 1) % 3}
    np.savez("toy.npz", **arrays)
    assert "the data have changed" in refusal(["train", "--resume", "--out", "run"], place, capsys)


def test_dry_run_refuses_a_running_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_lock(place / "run"):
        assert "another process is using the run" in refusal(command({}), place, capsys)
    assert not (place / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_dry_run_refuses_a_folder_without_permission(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "run").mkdir(mode=0o500)
    assert "cannot write in run" in refusal(command({}), place, capsys)


@pytest.mark.parametrize("service", ["tensorboard", "wandb", "mlflow"])
def test_dry_run_refuses_a_missing_service_package(
    service: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refusal(command({f"run.{service}": "true"}), place, capsys)
    assert f"run.{service} needs {service}: pip install 'mixskd[{service}]'" in said


class Refuses(Listener):
    """One that cannot start, as a service without a login."""

    def start(self, info: RunInfo) -> None:
        raise UserError("log in first")


def test_dry_run_starts_no_listener(place: Path) -> None:
    before = content(place)
    assert mixskd.train(data="toy.npz", out="run", dry_run=True, listeners=[Refuses()], **SETTINGS)["out"] == "run"
    with pytest.raises(UserError, match="log in first"):
        mixskd.train(data="toy.npz", out="run", listeners=[Refuses()], **SETTINGS)
    assert content(place) == before
