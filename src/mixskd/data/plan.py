"""The images of each batch: a pure function of seed and epoch, the same for any number of processes."""

import numpy as np

from mixskd.data.needs import DataNeeds
from mixskd.errors import UserError
from mixskd.runtime.distributed import World


class BatchPlan:
    """Shuffled anchors in batches, and for each anchor its partners of the same class; a smaller last batch is dropped.

    With ``balance`` b, class c is drawn n_c^(1 - b) / sum n^(1 - b) of the time: 0 is as it is, 1 every class equally
    often. Raises UserError for a batch larger than the training set, or one that the processes cannot share equally.
    """

    def __init__(
        self, labels: np.ndarray, batch_size: int, seed: int, needs: DataNeeds, world: World, balance: float = 0.0
    ) -> None:
        if batch_size > len(labels):
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {len(labels)} images; "
                "set a smaller --batch-size"
            )
        if batch_size % world.size:
            raise UserError(f"{world.size} processes cannot share a batch of {batch_size} equally; change --batch-size")
        self.labels, self.batch_size, self.seed, self.needs, self.world = labels, batch_size, seed, needs, world
        self.balance = balance
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
        anchors, generator = self._anchors(epoch)
        if self.needs.partners_from == "previous":
            partners = self._before(anchors, epoch)
        else:
            draw = self._others if self.needs.distinct_partners else self._any
            partners = draw(anchors, generator)
        part = self.world.part(self.batch_size)
        shape = (len(self), self.batch_size)
        return anchors.reshape(shape)[:, part], partners.reshape(*shape, self.needs.partners)[:, part]

    @property
    def slots(self) -> np.ndarray:
        """The places in the whole batch that are this process's (``b``)."""
        return np.arange(self.batch_size)[self.world.part(self.batch_size)]

    def _anchors(self, epoch: int) -> tuple[np.ndarray, np.random.Generator]:
        """The anchors of all batches of ``epoch`` one after the other, and the generator behind them."""
        generator = np.random.default_rng([self.seed, epoch])
        order = self._balanced(generator) if self.balance > 0 else generator.permutation(len(self.labels))
        return order[: len(self) * self.batch_size], generator

    def _before(self, anchors: np.ndarray, epoch: int) -> np.ndarray:
        """For each of ``anchors`` the one a batch earlier (DLB's sampler)."""
        first = self._anchors(epoch - 1)[0][-self.batch_size :] if epoch > 0 else anchors[: self.batch_size]
        return np.concatenate([first, anchors[: -self.batch_size]])

    def seeds(self, epoch: int) -> np.ndarray:
        """A seed for all that is random about each of this process's anchors (``steps x b``)."""
        drawn = np.random.default_rng([self.seed, epoch, 1]).integers(2**62, size=(len(self), self.batch_size))
        return drawn[:, self.world.part(self.batch_size)]

    def _balanced(self, generator: np.random.Generator) -> np.ndarray:
        """As many indices as there are images, each class as often as ``balance`` says and its images equally often."""
        present = np.flatnonzero(self.counts)
        shares = self.counts[present].astype(float) ** (1 - self.balance)
        wanted = shares / shares.sum() * len(self.labels)
        numbers = np.floor(wanted).astype(int)
        rest = len(self.labels) - numbers.sum()
        numbers[np.argsort(numbers - wanted, kind="stable")[:rest]] += 1
        chosen = []
        for label, number in zip(present, numbers, strict=True):
            members = self.by_class[self.starts[label] :][: self.counts[label]]
            rounds = [generator.permutation(members) for _ in range(-(-number // len(members)))]
            chosen.append(np.concatenate([*rounds, members[:0]])[:number])
        return generator.permutation(np.concatenate(chosen))

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
