"""However many images a split has, a suite holds only a few batches of them at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
from torch import Tensor

from mixskd.evaluation.suites import SUITES
from mixskd.evaluation.suites.linearity import Linearity
from tests.evaluation.support import Toy, batches, context

BATCHES = 15


class Watched:
    """Batches that are made when they are asked for; ``most`` of them were alive at one time."""

    def __init__(self, seed: int) -> None:
        self.made, self.most = batches(BATCHES * 4, batch=4, seed=seed), 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        alive: list[weakref.ref[Tensor]] = []
        for images, labels in self.made:
            fresh = images.clone()
            alive.append(weakref.ref(fresh))
            self.most = max(self.most, sum(reference() is not None for reference in alive))
            yield fresh, labels
            del fresh


@pytest.mark.parametrize("name", SUITES)
def test_suite_keeps_few_batches_in_memory(name: str) -> None:
    suite = Linearity(pairs=5) if name == "linearity" else SUITES[name]()
    own, train, foreign = Watched(1), Watched(2), Watched(3)
    told = context(train=train, others={"other": Toy(seed=1)}, keep_features=True)
    if name == "ood":
        told = context(other_data={"test": foreign})
    result = suite(Toy(), own, told)
    assert result["images"] == BATCHES * 4
    assert 1 <= own.most <= 3
    assert train.most <= 3
    assert foreign.most <= 3
    assert (train.most > 0) == (name == "features")
