"""The random numbers for the augmentation of a step, drawn in one call."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixskd.data.plan import BatchPlan


class Draws:
    """``numbers`` uniform numbers in [0, 1) for each image of a step; the images come in groups of ``sizes``.

    They depend on (seed, epoch, step) alone. Every process draws the numbers of all processes and uses its part, so
    that the images do not depend on the number of processes.
    """

    def __init__(self, plan: BatchPlan, device: torch.device, numbers: int, sizes: Sequence[int]) -> None:
        self.seed, self.world, self.device, self.numbers = plan.seed, plan.world, device, numbers
        self.sizes = [size * plan.world.size for size in sizes]

    def of(self, epoch: int, step: int) -> Tensor:
        """All numbers of a step in one tensor, for :meth:`split`."""
        state = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1, np.uint64)
        generator = torch.Generator(self.device).manual_seed(int(state[0] >> 1))
        return torch.rand(self.numbers * sum(self.sizes), generator=generator, device=self.device)

    def split(self, drawn: Tensor) -> list[Tensor]:
        """The numbers of this process's images, ``numbers x size`` for each group."""
        groups = drawn.split([self.numbers * size for size in self.sizes])
        return [
            group.view(self.numbers, size)[:, self.world.part(size)]
            for group, size in zip(groups, self.sizes, strict=True)
        ]
