"""The random numbers behind the augmentation of a step, drawn at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixskd.data.plan import BatchPlan


class Draws:
    """So many ``numbers``, uniform in [0, 1), for each image of a step; the images come in groups of ``sizes``.

    They follow from (seed, epoch, step). Every process draws those of all processes and uses its part, so that their
    number does not change the images.
    """

    def __init__(self, plan: BatchPlan, device: torch.device, numbers: int, sizes: Sequence[int]) -> None:
        self.seed, self.world, self.device, self.numbers = plan.seed, plan.world, device, numbers
        self.sizes = [size * plan.world.size for size in sizes]

    def of(self, epoch: int, step: int) -> Tensor:
        """All numbers of a step in one tensor, which :meth:`split` takes apart."""
        state = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1, np.uint64)
        generator = torch.Generator(self.device).manual_seed(int(state[0] >> 1))
        return torch.rand(self.numbers * sum(self.sizes), generator=generator, device=self.device)

    def split(self, drawn: Tensor) -> list[Tensor]:
        """``numbers x size`` for each group of this process's images."""
        groups = drawn.split([self.numbers * size for size in self.sizes])
        return [
            group.view(self.numbers, size)[:, self.world.part(size)]
            for group, size in zip(groups, self.sizes, strict=True)
        ]
