"""Flags, variables and streams that were a bug of mixskd once: each is one line and exit code 2."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.cli.main import main
from mixskd.errors import UserError
from mixskd.errors.terminal import show
from tests.conftest import make_toy
from tests.processes import Fork, as_module

ONE_RUN = ["train", "--epochs", "1", "--run.progress", "false"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show-data", "--out", ""], "cannot write .: it is a folder"),
        (["benchmark", "--out", "/"], "cannot write /: it is a folder"),
        (["predict", "run", "a.png", "--batch-size", "9" * 20], "invalid int value"),
        (["evaluate", "run", "--batch-size", "9" * 20], "invalid int value"),
        (["calibrate", "run", "--batch-size", "9" * 20], "invalid int value"),
        (["compare", "--config", "grid.yaml"], "unknown recipe '5'"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text("transfer: {recipe: 5}")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "variables",
    [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": "-1"}, {"WORLD_SIZE": "2", "RANK": "x"}],
)
def test_variables_of_torchrun_that_do_not_fit_are_one_line(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*ONE_RUN, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "start several processes with torchrun" in error
    assert error.count("\n") == 1


def test_a_closed_output_is_no_fault() -> None:
    command = f"{sys.executable} -m mixskd list recipes >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, env=os.environ)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_acts_on_a_terminal_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    show("a\x1b[2Jb", "c\nd")
    show("\u202e", error=True)
    assert capsys.readouterr() == ("a\\x1b[2Jb\nc\\nd\n", "\\u202e\n")


@pytest.mark.parametrize(
    ("images", "draws", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), None, "images must be a tensor B x C x H x W, not ndarray"),
        (None, None, "images must be a tensor B x C x H x W, not NoneType"),
        (torch.zeros(2, 1, 8, 8), None, r"images must be of shape B x 3 x H x W, not \(2, 1, 8, 8\)"),
        (torch.zeros(2, 3, 8), None, "images must be of shape B x 3 x H x W"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.float64), None, "images must be normalised numbers of torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), None, "images must be normalised numbers of torch.float32"),
        (torch.zeros(2, 3, 8, 8), 5, "draws must be what method.draw"),
    ],
)
def test_a_wrong_batch_is_named_before_the_forward_pass(images: object, draws: object, message: str) -> None:
    method = mixskd.Mixup(make_toy().float())  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message):
        method(images, torch.zeros(2, dtype=torch.int64), draws)


@pytest.mark.parametrize("classes", [-5, 0, 1.5, None, "5"])
def test_a_wrong_number_of_classes_is_named(classes: object) -> None:
    with pytest.raises(TypeError, match=r"build_backbone\(\) needs num_classes as int 1 or above, not"):
        mixskd.build_backbone("wrn_10_1", classes)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"build_backbone\(\) needs name as str, not NoneType"):
        mixskd.build_backbone(None, 5)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """The words of a run with two workers on 16 images in ``tmp_path``."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    return [*ONE_RUN, "--data", str(tmp_path / "photos"), "--data.image-size", "8", "--data.workers", "2",
            "--batch-size", "4", "--backbone", "wrn_10_1", "--run.device", "cpu", "--run.precision", "fp32",
            "--out", str(tmp_path / "run")]  # fmt: skip


def with_handles(most: int, *words: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    as_module("mixskd", *words)


@pytest.mark.parametrize("most", [16, 24])  # too few for the images, and for the processes that load them
def test_few_file_handles_are_one_line(most: int, tmp_path: Path, photos: list[str]) -> None:
    fork = Fork(tmp_path / "log.txt", with_handles, most, *photos)
    assert fork.wait() == 2, fork.said
    assert fork.said.splitlines()[-1].partition(";")[0] == "mixskd: error: too many files are open", fork.said
    assert "Traceback" not in fork.said


def with_shared_memory(size: str, *words: str) -> None:
    """mixskd with another /dev/shm for this process and its children; exit code 77 where that is not allowed."""
    libc = ctypes.CDLL(None)
    private = libc.unshare(0x20000) == 0 and libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None) == 0
    if not private or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode()):
        raise SystemExit(77)
    as_module("mixskd", *words)


@pytest.mark.skipif(sys.platform != "linux", reason="needs mounts of its own")
@pytest.mark.parametrize("size", ["4k", "64k"])  # too small for locks, and for images
def test_tiny_shared_memory_is_one_line(size: str, tmp_path: Path, photos: list[str]) -> None:
    photos[photos.index("8")] = "64"
    fork = Fork(tmp_path / "log.txt", with_shared_memory, size, *photos)
    if (code := fork.wait()) == 77:
        pytest.skip("mounts are not allowed")
    assert code == 2, fork.said
    assert "/dev/shm is too small: use fewer workers" in fork.said.splitlines()[-1]
    assert not any(word in fork.said for word in ("Traceback", "Exception ignored"))
