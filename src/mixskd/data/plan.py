"""Which images make up each batch: a pure function of seed and epoch, the same for any number of processes."""

from __future__ import annotations

import numpy as np

from mixskd.distributed import World
from mixskd.errors import UserError
from mixskd.needs import DataNeeds


class BatchPlan:
    """Shuffled anchors in batches, and for each anchor its partners of the same class; a smaller last batch is dropped.

    Raises UserError for a batch larger than the training set, or one that the processes cannot share equally.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int, needs: DataNeeds, world: World) -> None:
        if batch_size > len(labels):
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {len(labels)} images; "
                "set a smaller --batch-size"
            )
        if batch_size % world.size:
            raise UserError(f"{world.size} processes cannot share a batch of {batch_size} equally; change --batch-size")
        self.labels, self.batch_size, self.seed, self.needs, self.world = labels, batch_size, seed, needs, world
        self.by_class = np.argsort(labels, kind="stable")
        self.counts = np.bincount(labels)
        self.starts = np.cumsum(self.counts) - self.counts
        self.places = np.empty_like(self.by_class)
        self.places[self.by_class] = np.arange(len(labels)) - self.starts[labels[self.by_class]]

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """This process's anchors (``steps x b`` indices) and partners (``steps x b x partners``) of ``epoch``."""
        generator = np.random.default_rng([self.seed, epoch])
        anchors = generator.permutation(len(self.labels))[: len(self) * self.batch_size]
        draw = self._others if self.needs.distinct_partners else self._any
        partners = draw(anchors, generator)
        part = self.world.part(self.batch_size)
        shape = (len(self), self.batch_size)
        return anchors.reshape(shape)[:, part], partners.reshape(*shape, self.needs.partners)[:, part]

    def _any(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Partners drawn uniformly from the anchor's class, itself included (CS-KD's sampler)."""
        of = self.labels[anchors][:, None]
        draws = generator.integers(self.counts[of], size=(len(anchors), self.needs.partners))
        return self.by_class[self.starts[of] + draws]

    def _others(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Distinct partners, none the anchor (BAKE's sampler), by Floyd's algorithm on the places behind the anchor.

        In a class that is too small for that they are drawn independently.
        """
        of, wanted = self.labels[anchors], self.needs.partners
        others = np.maximum(self.counts[of] - 1, 1)
        chosen = np.empty((len(anchors), wanted), dtype=np.int64)
        for j in range(wanted):
            top = others - wanted + j
            draw = generator.integers(np.maximum(top, 0) + 1)
            taken = (chosen[:, :j] == draw[:, None]).any(1)
            chosen[:, j] = np.where(taken, top, draw)
        again = generator.integers(others[:, None], size=chosen.shape)
        chosen = np.where((others < wanted)[:, None], again, chosen)
        counts = self.counts[of][:, None]
        return self.by_class[self.starts[of][:, None] + (self.places[anchors][:, None] + 1 + chosen) % counts]
