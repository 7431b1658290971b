"""Which name is suggested for one that is not known."""

from __future__ import annotations

import pytest

from mixskd.config import known_keys
from mixskd.errors import nearest

FLAGS = [f"--{key}" for key in known_keys()]


@pytest.mark.parametrize(
    ("typed", "choices", "meant"),
    [
        ("--data.size", FLAGS, "--data.image_size"), ("--size", FLAGS, "--data.image_size"),
        ("--data.resizing", FLAGS, "--data.resize"), ("--run.batch", FLAGS, "--run.batch_size"),
        ("--data.val", FLAGS, "--data.val_holdout"), ("--workers", FLAGS, "--data.workers"),
        ("--lr", FLAGS, "--optim.lr"),
        ("optim.rate", ["optim.name", "optim.lr"], "optim.lr"), ("run.workers", ["run.epochs", "run.score_test"], None),
        ("--optim.learning-rate", FLAGS, "--optim.lr"), ("--run.epoch", FLAGS, "--run.epochs"),
        ("scan.csv", ["other.csv", "scans.csv"], "scans.csv"),
        ("--backbone", ["--backbones", *FLAGS], "--backbones"),
        ("fotos", ["photos", "mixskd"], "photos"), ("xyz", ["photos"], None),
    ],
)  # fmt: skip
def test_suggestion(typed: str, choices: list[str], meant: str | None) -> None:
    assert nearest(typed, choices) == (f"; did you mean {meant!r}?" if meant else "")
