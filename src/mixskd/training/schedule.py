"""The learning rate, a pure function of the step (linear warm-up, then steps, a cosine or a power)."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from mixskd.errors.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixskd.config import OptimConfig


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate for the 0-based ``step`` of a run of ``epochs``.

    During ``warmup_epochs`` it is lr (s + 1) / (warmup steps), per iteration. Then ``step`` multiplies it by ``decay``
    from each 0-based epoch in ``milestones`` on; ``cosine`` is lr / 2 (1 + cos(pi (e - w) / (epochs - w))), where e is
    the epoch, or with ``cosine_by`` step the epoch and its share that is done; ``poly`` is
    lr (1 - s / steps)^power, per iteration. From each of ``restarts`` to the next it is that of a run of these epochs
    without warm-up, with milestones scaled by its length over that of the first part.
    """
    if optim.restarts:
        begin, end = part(optim.restarts, step // steps_per_epoch, epochs)
        milestones = optim.milestones
        if begin:
            milestones = tuple(round(milestone * (end - begin) / min(optim.restarts)) for milestone in milestones)
        warmup = 0.0 if begin else optim.warmup_epochs
        optim = dataclasses.replace(optim, restarts=(), milestones=milestones, warmup_epochs=warmup)
        return learning_rate(optim, step - begin * steps_per_epoch, steps_per_epoch, end - begin)
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


def part(restarts: Sequence[int], epoch: int, epochs: int) -> tuple[int, int]:
    """The first epoch of the part of the schedule that has ``epoch``, and the first one after it."""
    begin = max((restart for restart in restarts if restart <= min(epoch, epochs - 1)), default=0)
    return begin, min((restart for restart in restarts if begin < restart < epochs), default=epochs)


def progress(optim: OptimConfig, epoch: int, epochs: int) -> float:
    """The share of the run that is done at the end of ``epoch``, by which methods change over it; 1 after a restart."""
    return min(1.0, (epoch + 1) / part(optim.restarts, 0, epochs)[1])


def remarks(optim: OptimConfig, epochs: int) -> list[str]:
    """Warnings about a schedule that probably is a mistake for a run of ``epochs``."""
    found = [f"the schedule starts again after epoch {restart}" for restart in optim.restarts if restart < epochs]
    epochs = part(optim.restarts, 0, epochs)[1]
    if optim.warmup_epochs >= epochs:
        lasting = counted(epochs, "epoch")
        found.append(f"the learning rate is still warming up after {lasting}; set a smaller --optim.warmup-epochs")
    elif optim.schedule == "step" and all(milestone >= epochs for milestone in optim.milestones):
        found.append(
            f"the learning rate never falls in {epochs} epochs; set --optim.milestones, or --optim.schedule cosine"
        )
    return found
