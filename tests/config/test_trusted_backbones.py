"""Backbones from elsewhere: a person may name one and is told; a file may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixskd
from mixskd.cli.main import main
from mixskd.config import trusted_backbones as elsewhere
from mixskd.config.trusted_backbones import VARIABLE, announce, check_typed, is_elsewhere, remember_typed
from mixskd.errors import UserError
from tests.conftest import write_npz

HUB = "timm/hf-hub:someone/something"
REFUSED = "only a person may name such a backbone"


@pytest.fixture(autouse=True)
def _nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(elsewhere, "_announced", set())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr("socket.socket.connect", asked)
    monkeypatch.setattr("socket.getaddrinfo", asked)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy data and a model for ``local-dir:``, where the commands are given."""
    write_npz(tmp_path / "toy.npz")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.json").write_text(json.dumps({"architecture": "resnet10t", "num_classes": 10}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*words: str) -> list[str]:
    usual = ("--data", "toy.npz", "--method", "baseline", "--epochs", "1", "--batch-size", "4", "--out", "run")
    return ["train", *usual, "--run.progress", "false", *words]


def test_what_is_elsewhere() -> None:
    assert all(map(is_elsewhere, (HUB, "timm/local-dir:/tmp/x", "timm/hf_hub:a/b", "timm/anything:x")))
    assert not any(map(is_elsewhere, ("timm/resnet18.a1_in1k", "resnet18", "torchvision/vit_b_16", "hf-hub:a/b")))


@pytest.mark.parametrize("typed", [HUB, f"resnet18, {HUB}", ["resnet18", HUB], [[HUB]], (HUB, 3)], ids=str)
def test_what_a_person_named_is_allowed(typed: Any) -> None:
    with pytest.raises(UserError, match=REFUSED):
        check_typed(HUB)
    remember_typed(None, typed)
    check_typed(HUB)
    with pytest.raises(UserError, match=REFUSED):
        check_typed(HUB + "-else")


def test_it_is_said_once_and_by_one_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        announce(HUB)
        announce("timm/resnet18")
    assert capsys.readouterr().err == f"mixskd: the backbone {HUB} is downloaded from the Hugging Face hub\n"
    monkeypatch.setenv("RANK", "1")
    announce(HUB + "-else")
    assert capsys.readouterr().err == ""


def test_it_is_said_before_the_network_is_asked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    said: list[str] = []

    def ask(*_: Any, **__: Any) -> None:
        said.append(capsys.readouterr().err)
        raise RuntimeError("no network here")

    monkeypatch.setattr(timm, "create_model", ask)
    assert main(train("--backbone", HUB)) == 2
    assert f"the backbone {HUB} is downloaded from the Hugging Face hub\n" in said[0]
    assert "no network here" in capsys.readouterr().err


@pytest.mark.parametrize("name", [HUB, "timm/local-dir:there"])
@pytest.mark.usefixtures("no_network")
def test_no_file_may_name_one(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.yaml").write_text(f"backbone: {name}\ndata: {{source: toy.npz}}\n")
    assert main(["train", "--config", "a.yaml", "--batch-size", "4", "--out", "run"]) == 2
    assert REFUSED in capsys.readouterr().err
    assert not (place / "run").exists()
    for key, value in (("backbone", name), ("backbones", [name])):
        (place / "grid.yaml").write_text(json.dumps({key: value, "data": {"source": "toy.npz"}, "methods": ["mixup"],
                                                     "images_per_update": 8}))  # fmt: skip
        assert main(["compare", "--config", "grid.yaml", "--out", "runs", "--jobs", "1"]) == 2
        assert REFUSED in capsys.readouterr().err


@pytest.mark.usefixtures("no_network")
def test_no_run_of_a_stranger_may_name_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train("--backbone", "wrn_10_1")) == 0
    config = place / "run" / "config.yaml"
    config.write_text(config.read_text().replace("wrn_10_1", HUB))
    assert HUB in config.read_text()
    capsys.readouterr()
    (place / "runs").mkdir()
    shutil.copytree("run", "runs/run")
    for argv in (["train", "--resume", "--out", "run"], ["report", "run"], ["compare", "--table", "runs"]):
        assert main(argv) == 2, argv
        assert REFUSED in capsys.readouterr().err


def test_a_folder_that_a_person_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    with np.load("toy.npz") as file:
        arrays = {**file}
    for name in ("train_images", "test_images"):
        arrays[name] = arrays[name].repeat(4, 1).repeat(4, 2)
    np.savez("toy.npz", **arrays)
    assert main(train("--backbone", "timm/local-dir:there")) == 0
    assert "the backbone timm/local-dir:there is read from a folder\n" in capsys.readouterr().err
    assert mixskd.load("run").name == "timm/resnet10t"  # whoever opens the model file needs no such folder
