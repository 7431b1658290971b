"""Run by torchrun in test_distributed: three steps on this process's half of a batch, weights to a file at the end."""

from __future__ import annotations

import sys

import torch

from mixskd.config import OptimConfig
from mixskd.distributed import join
from mixskd.methods import METHODS
from mixskd.mixing import Mix
from mixskd.needs import Batch
from mixskd.training.step import TrainStep
from tests.conftest import make_toy_without_norm


def steps(method_name: str, out: str) -> None:
    """As one process, the permutation pairs within halves, as two processes pair within themselves."""
    torch.manual_seed(0)
    method = METHODS[method_name](make_toy_without_norm())
    images, labels = torch.randn(3, 8, 3, 8, 8), torch.randint(5, (3, 8))
    halves = torch.stack([torch.stack([torch.randperm(4), torch.randperm(4)]) for _ in range(3)])
    lams = torch.rand(3)
    with join("cpu") as world:
        step = TrainStep(method, OptimConfig(lr=0.05), torch.device("cpu"), "fp32", 1, world)
        for i in range(3):
            part = world.part(8)
            offsets = torch.tensor([[0], [4]]) if world.size == 1 else torch.zeros(2, 1, dtype=torch.long)
            permutation = (halves[i] + offsets).flatten() if world.size == 1 else halves[i, world.rank]
            draws = Mix(lams[i], permutation) if method_name in ("mixskd", "mixup") else None
            step.method.draw = lambda images, draws=draws: draws  # type: ignore[method-assign,misc]
            step(Batch(images[i, part], labels[i, part], {}), 0.05, seed=i)
        if world.first:
            torch.save(method.state_dict(), out)


if __name__ == "__main__":
    steps(*sys.argv[1:])
