"""The learning rate, a pure function of the step (linear warm-up, then steps, a cosine or a power)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixskd.config import OptimConfig


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate for the 0-based ``step`` of a run of ``epochs``.

    During ``warmup_epochs`` it is lr (s + 1) / (warmup steps), per iteration. Then ``step`` multiplies it by ``decay``
    from each 0-based epoch in ``milestones`` on; ``cosine`` is lr / 2 (1 + cos(pi (e - w) / (epochs - w))), where e is
    the epoch, or with ``cosine_by`` step the epoch and its share that is done; ``poly`` is
    lr (1 - s / steps)^power, per iteration.
    """
    warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return optim.lr * (step + 1) / warmup_steps
    if optim.schedule == "poly":
        return optim.lr * (1 - step / (steps_per_epoch * epochs)) ** optim.power
    epoch = step // steps_per_epoch
    if optim.schedule == "cosine":
        span = max(epochs - optim.warmup_epochs, 1)
        done = step / steps_per_epoch if optim.cosine_by == "step" else epoch
        return optim.lr / 2 * (1 + math.cos(math.pi * (done - optim.warmup_epochs) / span))
    return optim.lr * optim.decay ** sum(epoch >= milestone for milestone in optim.milestones)


def remarks(optim: OptimConfig, epochs: int) -> list[str]:
    """Warnings about a schedule that probably is a mistake for a run of ``epochs``."""
    found = []
    if optim.warmup_epochs >= epochs:
        found.append(
            f"the learning rate is still warming up after {epochs} epochs; set a smaller --optim.warmup-epochs"
        )
    elif optim.schedule == "step" and all(milestone >= epochs for milestone in optim.milestones):
        found.append(
            f"the learning rate never falls in {epochs} epochs; set --optim.milestones, or --optim.schedule cosine"
        )
    return found
