"""Runs and times the steps of one variant, set up as ``train`` sets itself up, or on random images."""

import itertools
import time
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch

from mixskd.benchmarking.cost import flop_counter
from mixskd.benchmarking.timing import StepTimer
from mixskd.benchmarking.variants import Variant
from mixskd.config import Experiment
from mixskd.data import DataBundle, ImageSet
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD, Preprocess, for_channels
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import TYPES
from mixskd.training.engine import Engine
from mixskd.training.factory import build_parts
from mixskd.training.memory import peak_memory

SYNTHETIC_CLASSES = 100
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the ceiling
AnyBatch = TypeVar("AnyBatch", Batch, DeferredBatch)


class Bench:
    """A step of ``experiment`` by ``variant`` on batches from its loader."""

    def __init__(self, experiment: Experiment, variant: Variant, world: World) -> None:
        self.experiment, self.variant = experiment, variant
        parts = build_parts(experiment, world, engine=variant.engine, data=benchmark_data(experiment),
                            keep_memory=variant.keep_memory)  # fmt: skip
        self.device, self.loader, self.step = parts.device, parts.loader, parts.step
        self.batches = list(itertools.islice(self._endless(), 4))
        self.count = 0

    def _endless(self) -> Iterator[Batch | DeferredBatch]:
        for epoch in itertools.count():
            for batch in self.loader.epoch(epoch):
                yield batch if self.variant.engine.channels_last else contiguous(batch)

    def steps(self, number: int) -> float:
        """Seconds a step, over ``number`` steps after one another."""
        self._wait()
        start = time.perf_counter()
        for _ in range(number):
            self._one()
        self._wait()
        return (time.perf_counter() - start) / number

    def _one(self) -> None:
        self.step(self.batches[self.count % len(self.batches)], self.experiment.optim.lr / 100, seed=self.count)
        self.count += 1

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def parts(self, number: int) -> dict[str, float]:
        """Seconds of each part of a step, the median of ``number`` steps."""
        return StepTimer(self.step, self.device).measure(self._one, number)

    def data_seconds(self, at_least: float) -> float:
        """Mean seconds per batch of the loader alone, over ``at_least`` seconds and 20 batches."""
        batches, number = self._endless(), 0
        for _ in range(8):  # the workers prepared these before the clock started
            next(batches)
        self._wait()
        start = time.perf_counter()
        while number < 20 or time.perf_counter() - start < at_least:
            next(batches)
            number += 1
        self._wait()
        return (time.perf_counter() - start) / number

    def executed(self) -> tuple[Engine, list[str]]:
        """The engine with which the steps were executed, and why it is not the variant's if it is not."""
        return self.step.engine, self.step.notes

    def peak_memory(self) -> int:
        """The largest memory so far in bytes: of the tensors on a GPU, of the process on a CPU."""
        return peak_memory(self.device)

    def flops(self) -> int:
        """Floating-point operations of a step's convolutions and matrix products, forward and backward."""
        with flop_counter() as counter:
            self._one()
        return counter.get_total_flops()

    def ceiling(self, precision: str) -> float:
        """FLOP/s of a large square matrix product in ``precision``: the median of a second's, or five."""
        side = SIDES[self.device.type]
        a, b = (torch.randn(side, side, device=self.device).to(TYPES[precision]) for _ in range(2))
        seconds = []
        for i in range(1000):
            self._wait()
            start = time.perf_counter()
            a @ b
            self._wait()
            if i > 0:  # the first is warm-up
                seconds.append(time.perf_counter() - start)
            if sum(seconds) > 1 and len(seconds) >= 5:
                break
        return 2 * side**3 / float(np.median(seconds))


def contiguous(batch: AnyBatch) -> AnyBatch:
    """``batch`` with contiguous images, views and partners."""
    if isinstance(batch, DeferredBatch):
        make = batch.make
        return batch._replace(make=lambda *given: contiguous(make(*given)))
    extra = {name: x.contiguous() for name, x in batch.extra.items()}
    return batch._replace(images=batch.images.contiguous(), extra=extra)


def benchmark_data(experiment: Experiment) -> DataBundle | None:
    """Random images in 100 classes, of ``data.image_size`` or 32 px, for the source ``synthetic``; else None."""
    if experiment.data.source != "synthetic":
        return None
    size, channels = experiment.data.image_size or 32, experiment.data.channels
    count = max(4 * experiment.run.batch, 2 * SYNTHETIC_CLASSES)
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(count) % SYNTHETIC_CLASSES)
    classes = tuple(map(str, range(SYNTHETIC_CLASSES)))
    preprocess = Preprocess(size, for_channels(CIFAR_MEAN, channels), for_channels(CIFAR_STD, channels))
    return DataBundle({"train": images, "test": images}, classes, preprocess)
