"""The numbers of a step: drawn at once, and the same however many processes there are."""

from __future__ import annotations

import numpy as np
import torch

from mixskd.data.draws import Draws
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.runtime.distributed import World

CPU, NUMBERS, SIZES = torch.device("cpu"), 5, [6, 0, 12]


def groups(world: World, epoch: int = 2, step: int = 1) -> list[torch.Tensor]:
    plan = BatchPlan(np.arange(12) % 3, 6, 7, DataNeeds(), world)
    draws = Draws(plan, CPU, NUMBERS, [size // world.size for size in SIZES])
    return draws.split(draws.of(epoch, step))


def test_processes_use_parts_of_the_same_numbers() -> None:
    whole, first, second = (groups(world) for world in (World(), World(0, 2), World(1, 2)))
    assert [tuple(group.shape) for group in whole] == [(NUMBERS, size) for size in SIZES]
    for group, *parts in zip(whole, first, second, strict=True):
        assert torch.equal(group, torch.cat(parts, dim=1))


def test_each_step_has_its_own_numbers() -> None:
    assert all(torch.equal(a, b) for a, b in zip(groups(World()), groups(World()), strict=True))
    for other in (groups(World(), epoch=3), groups(World(), step=2)):
        assert not torch.equal(groups(World())[0], other[0])


def test_draws_on_a_cpu_equal_separate_draws() -> None:
    """As earlier versions drew them, so that their runs can be resumed and made again."""
    state = np.random.SeedSequence([7, 2, 1]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0] >> 1))
    for group in groups(World()):
        assert torch.equal(group[:3], torch.rand(3, group.shape[1], generator=generator))
        assert torch.equal(group[3:], torch.rand(2, group.shape[1], generator=generator))
