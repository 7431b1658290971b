"""Batches of annotated images for training and scoring; all draws depend on (seed, step) only."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mixskd.data.batch import Batch
from mixskd.data.workers import WorkerBatches
from mixskd.errors import UserError
from mixskd.runtime.distributed import World

Item = tuple[int, int]  # the index of an image in its split, and the seed of its augmentation


class Stream:
    """An endless stream of images, shuffled anew for each pass, in epochs of ``length`` batches.

    If ``length`` is None, an epoch has as many batches as fit into one pass, and at least one. ``batch_size`` counts
    the images of all processes, each of which gets an equal part.
    """

    def __init__(
        self,
        images: Dataset[Any],
        collate: Callable[[Sequence[Any]], Batch],
        batch_size: int,
        device: torch.device,
        *,
        seed: int = 0,
        length: int | None = None,
        workers: int = 2,
        world: World | None = None,
    ) -> None:
        self.count = len(images)  # type: ignore[arg-type]
        self.batch_size, self.seed, self.world = batch_size, seed, world or World()
        if batch_size % self.world.size:
            raise UserError(f"run.batch_size {batch_size} must be a multiple of the {self.world.size} processes")
        self.length = length or max(self.count // batch_size, 1)
        self.batches, self.device = WorkerBatches(images, device, workers, collate), device

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.length

    def items(self, step: int) -> list[Item]:
        """This process's part of batch ``step``."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        passes = range(places[0] // self.count, places[-1] // self.count + 1)
        orders = {p: np.random.default_rng([self.seed, 0, p]).permutation(self.count) for p in passes}
        seeds = np.random.default_rng([self.seed, 1, step]).integers(2**62, size=self.batch_size)
        items = [
            (int(orders[place // self.count][place % self.count]), int(seed))
            for place, seed in zip(places, seeds, strict=True)
        ]
        return items[self.world.part(self.batch_size)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from its step ``start`` on."""
        first = epoch * self.length
        items = (self.items(step) for step in range(first + start, first + self.length))
        yield from (on_device(batch, self.device) for batch in self.batches.load(items))


class InOrder:
    """The images of this process's part of a split, each once, in order, in batches of one image."""

    def __init__(
        self, images: Dataset[Any], collate: Callable[[Sequence[Any]], Any], *, workers: int = 2,
        world: World | None = None,
    ) -> None:  # fmt: skip
        world = world or World()
        self.items = [[(i, 0)] for i in range(world.rank, len(images), world.size)]  # type: ignore[arg-type]
        self.batches = WorkerBatches(images, torch.device("cpu"), workers, collate)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return self.batches.load(self.items)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """``batch`` on ``device``; images channels last."""
    images = batch.images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    extra = {name: value.to(device, non_blocking=True) for name, value in batch.extra.items()}
    return Batch(images, batch.labels.to(device, non_blocking=True), extra)
