from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch.utils.data import Dataset

from mixskd.data.batch import Batch
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.transfer.loaders import InOrder, Stream


class Numbers(Dataset[tuple[int, int]]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, int]:
        if item[1] < 0:
            raise UserError("a bad file")
        return item


def batch(items: Sequence[tuple[int, int]]) -> Batch:
    return Batch(torch.zeros(len(items), 3, 4, 4), torch.tensor([i for i, _ in items]), {})


def stream(size: int = 4, **options: object) -> Stream:
    return Stream(Numbers(), batch, size, torch.device("cpu"), workers=0, **options)  # type: ignore[arg-type]


def test_every_pass_visits_every_image_once() -> None:
    parts = stream(length=5)
    seen = [i for epoch in range(2) for b in parts.epoch(epoch) for i in b.labels.tolist()]
    assert len(seen) == 40
    passes = [seen[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_epoch_resumes_at_any_step_with_the_same_images_and_seeds() -> None:
    whole, again = stream(length=5), stream(length=5)
    expected = [b.labels.tolist() for b in whole.epoch(1)]
    assert [b.labels.tolist() for b in again.epoch(1, 3)] == expected[3:]
    assert whole.items(8) == again.items(8)
    assert stream(length=5, seed=1).items(8) != whole.items(8)


@pytest.mark.parametrize(("size", "length"), [(4, 2), (10, 1), (25, 1)])
def test_epoch_is_one_pass_without_a_length(size: int, length: int) -> None:
    parts = stream(size)
    assert len(parts) == length
    assert [len(b.labels) for b in parts.epoch(0)] == [size] * length
    counts = Counter(i for b in parts.epoch(0) for i in b.labels.tolist())
    assert max(counts.values()) - min(counts.values()) <= (size > 10 or size == 4)


def test_processes_split_each_batch() -> None:
    whole = stream()
    parts = [stream(world=World(rank, 2)) for rank in (0, 1)]
    assert parts[0].items(3) + parts[1].items(3) == whole.items(3)
    with pytest.raises(UserError, match="multiple of the 3 processes"):
        stream(world=World(0, 3))


def test_scoring_visits_every_image_once_in_order() -> None:
    orders = [[b.labels.item() for b in InOrder(Numbers(), batch, workers=0, world=World(r, 2))] for r in (0, 1)]
    assert orders == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_error_in_a_worker_is_one_line() -> None:
    parts = InOrder(Numbers(), batch, workers=1)
    parts.items = [[(0, -1)]]
    with pytest.raises(UserError, match=r"^a bad file$"):
        list(parts)
