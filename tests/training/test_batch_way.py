"""How many functions a batch crosses from the loader to the loss."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from torch import Tensor

import mixskd
from mixskd.config.build import build_experiment
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.training.factory import build_parts
from mixskd.training.run_folder import RunFolder
from mixskd.training.trainer import Trainer

SOURCE = str(Path(mixskd.__file__).parent)
IMAGES = 7


def holds_images(value: Any) -> bool:
    """Whether ``value`` is or contains a batch or its images."""
    if isinstance(value, list | tuple) and not isinstance(value, Batch | DeferredBatch):
        return any(map(holds_images, value))
    if isinstance(value, dict):
        return any(map(holds_images, value.values()))
    images = isinstance(value, Tensor) and value.ndim == 4 and value.shape[:2] == (IMAGES, 3)
    return images or isinstance(value, Batch | DeferredBatch)


class Crossings:
    """The functions of mixskd that take the batch or its images as an argument, or return them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(SOURCE) and event in ("call", "return"):
            count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
            values = [frame.f_locals.get(name) for name in code.co_varnames[:count]] if event == "call" else [result]
            if any(map(holds_images, values)):
                self.names.add(f"{code.co_filename.removeprefix(SOURCE)}:{code.co_qualname}")


@pytest.fixture
def _profiled() -> Iterator[None]:
    before = sys.getprofile()
    yield
    sys.setprofile(before)


@pytest.mark.usefixtures("_profiled")
def test_baseline_batch_crosses_at_most_fourteen_functions(tmp_path: Path, npz: Path) -> None:
    run = {"epochs": 1, "batch_size": IMAGES, "device": "cpu", "precision": "fp32"}
    experiment = build_experiment(
        {"backbone": "wrn_10_1", "method": "baseline", "data": {"source": str(npz)}, "run": run}
    )
    trainer = Trainer(build_parts(experiment, keep_memory=False), RunFolder(tmp_path))
    batches = trainer.parts.loader.epoch(0)
    crossings = Crossings()
    sys.setprofile(crossings)
    trainer.update(next(batches), epoch=0)
    sys.setprofile(None)
    names = [name.rpartition(":")[2] for name in crossings.names]
    assert {"DeviceLoader.epoch", "TrainStep.__call__", "Baseline.forward", "StagedBackbone.feature_maps"} <= set(names)
    assert len(names) <= 14, names
