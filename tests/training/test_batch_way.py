"""How many functions a batch crosses from the loader to the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mixskd.config.build import build_experiment
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.training.factory import build_parts
from mixskd.training.run_folder import RunFolder
from mixskd.training.trainer import Trainer
from tests.crossings import Crossings

IMAGES = 7


def holds_images(value: Any) -> bool:
    """Whether ``value`` is or contains a batch or its images."""
    if isinstance(value, list | tuple) and not isinstance(value, Batch | DeferredBatch):
        return any(map(holds_images, value))
    if isinstance(value, dict):
        return any(map(holds_images, value.values()))
    images = isinstance(value, Tensor) and value.ndim == 4 and value.shape[:2] == (IMAGES, 3)
    return images or isinstance(value, Batch | DeferredBatch)


def test_baseline_batch_crosses_at_most_fourteen_functions(tmp_path: Path, npz: Path) -> None:
    run = {"epochs": 1, "batch_size": IMAGES, "device": "cpu", "precision": "fp32"}
    experiment = build_experiment(
        {"backbone": "wrn_10_1", "method": "baseline", "data": {"source": str(npz)}, "run": run}
    )
    trainer = Trainer(build_parts(experiment, keep_memory=False), RunFolder(tmp_path))
    batches = trainer.parts.loader.epoch(0)
    with Crossings(holds_images, returned=True) as crossings:
        trainer.update(next(batches), epoch=0)
    names = crossings.names
    assert {"DeviceLoader.epoch", "TrainStep.__call__", "Baseline.forward", "StagedBackbone.feature_maps"} <= set(names)
    assert len(names) <= 14, " ".join(names)
