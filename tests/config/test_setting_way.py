"""How many functions a setting crosses from the command line to what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixskd.cli.main import main
from tests.crossings import Crossings

RATE = 0.04321


def holds_rate(value: Any) -> bool:
    """Whether ``value`` is or contains the learning rate, as a number or as text."""
    if isinstance(value, Mapping):
        return any(map(holds_rate, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_rate, value))
    if dataclasses.is_dataclass(value):
        return any(holds_rate(getattr(value, field.name, None)) for field in dataclasses.fields(value))
    if type(value).__name__ == "Namespace":
        return holds_rate(vars(value))
    return value in (RATE, str(RATE)) if isinstance(value, float | str) else False


def test_learning_rate_crosses_at_most_twelve_functions(tmp_path: Path, npz: Path) -> None:
    flags = {"data": npz, "backbone": "wrn_10_1", "method": "baseline", "epochs": 1, "batch-size": 6,
             "out": tmp_path / "run", "run.device": "cpu", "run.progress": "false", "optim.lr": RATE}  # fmt: skip
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    with Crossings(holds_rate, last="build_optimizer") as crossings:
        assert main(["train", *words]) == 0
    assert {"main", "build_experiment", "convert", "build_parts", "build_optimizer"} <= set(crossings.names)
    assert len(crossings.names) <= 12, " ".join(crossings.names)
