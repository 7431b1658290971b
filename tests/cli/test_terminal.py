"""Names from files reach a terminal with their control characters spelt out, whatever the verb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixskd.cli.main import main

ESCAPE = "\x1b[31m\x07\u202e[/bold]"


def photos(root: Path) -> Path:
    """A folder of classes whose names act on a terminal, with a duplicate, whose path a note names."""
    generator = np.random.default_rng(0)
    for split, images in (("train", 6), ("val", 4), ("test", 4)):
        for name in ("a", "b"):
            folder = root / split / f"{name}{ESCAPE[:-7]}"
            folder.mkdir(parents=True)
            for i in range(images):
                pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}\x1b[2J.png")
            if split == "train" and name == "a":
                Image.fromarray(pixels).save(folder / "again\x1b[2J.png")
    return root


def arrays(path: Path) -> Path:
    generator = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {"classes": np.array([f"{name}{ESCAPE}" for name in "ab"])}
    for split, count in (("train", 12), ("val", 8), ("test", 8)):
        values[f"{split}_images"] = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        values[f"{split}_labels"] = np.arange(count) % 2
    np.savez(path, **values)
    return path


@pytest.mark.parametrize("make", [photos, arrays])
def test_no_verb_prints_a_raw_escape(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    data = str(make(tmp_path / ("data.npz" if make is arrays else "photos")))
    image = tmp_path / "one\x1b[2J.png"
    Image.new("RGB", (12, 12)).save(image)
    setting = ["--data", data, "--batch-size", "4", "--epochs", "1", "--run.device", "cpu", "--run.precision", "fp32"]
    setting += ["--data.image-size", "8"] if make is photos else []
    run = f"run-{make.__name__}"
    for argv in (
        ["train", *setting, "--backbone", "wrn_10_1", "--method", "mixup", "--out", run],
        ["evaluate", run, "--suite", "accuracy,errors"],
        ["calibrate", run, "--coverage", "50"],
        ["predict", run, str(image)],
        ["predict", run, "gone\x1b[2J.png"],
        ["report", run, "--out", "report.html"],
        ["show-data", *setting[:2], *setting[10:], "--method", "mixup", "--out", "shown\x1b[2J.png"],
        ["compare", *setting, "--backbones", "wrn_10_1", "--methods", "baseline", "--seeds", "0", "--out", "c"],
        ["train", *setting, "--method", "x\x1b[2J", "--debug"],
        ["train", *setting, "--backbone", "wrn_10_1", "--weights", "x\x1b[2J.pt", "--out", "other\x1b[2J"],
    ):
        code = main(argv)
        out, error = capfd.readouterr()
        for character in "\x1b\x07\u202e":
            assert character not in out + error, (argv, out, error)
        wrong = {"gone\x1b[2J.png", "x\x1b[2J", "x\x1b[2J.pt"} & set(argv)
        assert code == (2 if wrong else 0), (argv, error)
