"""Partners from the batch before: in the plan, from both loaders, over processes, and from any step on."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mixskd.config import DataConfig
from mixskd.data import load_data
from mixskd.data.device_loader import DeviceLoader
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.data.worker_loader import WorkerLoader
from mixskd.runtime.distributed import World

NEEDS = DataNeeds(partners=1, partners_from="previous", slots=True)
CPU = torch.device("cpu")


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_previous_batch_crosses_the_ends_of_epochs(balance: float) -> None:
    labels = np.arange(13) % 3
    whole = BatchPlan(labels, 4, 0, NEEDS, World(), balance)
    epochs = [whole.epoch(epoch) for epoch in range(3)]
    anchors = np.concatenate([a for a, _ in epochs])
    partners = np.concatenate([p[..., 0] for _, p in epochs])
    assert np.array_equal(partners[1:], anchors[:-1])
    assert np.array_equal(partners[0], anchors[0])
    for rank in range(2):
        part = BatchPlan(labels, 4, 0, NEEDS, World(rank, 2), balance)
        assert part.slots.tolist() == [[0, 1], [2, 3]][rank]
        for epoch, (a, p) in enumerate(epochs):
            mine = part.epoch(epoch)
            assert np.array_equal(mine[0], a[:, part.slots])
            assert np.array_equal(mine[1], p[:, part.slots])


def test_other_partners_are_drawn_as_before() -> None:
    """The order of a run that began before there were partners of this kind."""
    labels = np.arange(12) % 3
    generator = np.random.default_rng([0, 2])
    assert (
        BatchPlan(labels, 4, 0, DataNeeds(), World()).epoch(2)[0].flatten().tolist()
        == generator.permutation(12).tolist()
    )


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_both_loaders_give_the_images_of_the_batch_before(kind: type, tmp_path: Path) -> None:
    """Images of one colour each, so that a crop of one is known by its brightest pixel."""
    colours = (20 * np.arange(1, 13, dtype=np.uint8))[:, None, None, None]
    images = np.broadcast_to(colours, (12, 8, 8, 3)).copy()
    np.savez(tmp_path / "flat.npz", train_images=images, train_labels=np.arange(12) % 3, test_images=images[:3],
             test_labels=np.arange(3))  # fmt: skip
    data = load_data(DataConfig(source=str(tmp_path / "flat.npz")))
    plan = BatchPlan(data.train.labels, 4, 0, NEEDS, World())
    config = DataConfig(augment="none")
    loader = DeviceLoader(data, plan, CPU) if kind is DeviceLoader else WorkerLoader(data, plan, CPU, config, 0)
    batches = [batch for epoch in range(2) for batch in loader.epoch(epoch)]
    for before, batch in pairwise(batches):
        assert batch.extra["partners"].shape == (4, 1, 3, 8, 8)
        assert batch.extra["slots"].tolist() == [0, 1, 2, 3]
        assert torch.equal(batch.extra["partners"][:, 0].amax((2, 3)), before.images.amax((2, 3)))
    later = list(islice(loader.epoch(1, 1), 2))
    for one, other in zip(later, batches[4:], strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.extra["partners"], other.extra["partners"])
