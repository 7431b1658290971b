"""How many functions a setting crosses from the command line to what it is for."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import mixskd
from mixskd.cli.main import main

SOURCE = str(Path(mixskd.__file__).parent)
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


class Crossings:
    """The functions of mixskd that take the rate as an argument, up to the one that builds the optimizer."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        done = "build_optimizer" in self.names
        if event == "call" and not done and code.co_filename.startswith(SOURCE) and code.co_qualname not in self.names:
            count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
            if any(holds_rate(frame.f_locals.get(name)) for name in code.co_varnames[:count]):
                self.names.append(code.co_qualname)


@pytest.fixture
def _profiled() -> Iterator[None]:
    before = sys.getprofile()
    yield
    sys.setprofile(before)


@pytest.mark.usefixtures("_profiled")
def test_learning_rate_crosses_at_most_twelve_functions(tmp_path: Path, npz: Path) -> None:
    flags = {"data": npz, "backbone": "wrn_10_1", "method": "baseline", "epochs": 1, "batch-size": 6,
             "out": tmp_path / "run", "run.device": "cpu", "run.progress": "false", "optim.lr": RATE}  # fmt: skip
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    crossings = Crossings()
    sys.setprofile(crossings)
    assert main(["train", *words]) == 0
    sys.setprofile(None)
    assert {"main", "build_experiment", "convert", "build_parts", "build_optimizer"} <= set(crossings.names)
    assert len(crossings.names) <= 12, crossings.names
