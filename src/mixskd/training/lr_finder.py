"""The learning-rate range test (Smith, arXiv:1506.01186): the loss while the rate grows, and a rate to start with."""

import copy
import math
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import torch

from mixskd.config import Experiment
from mixskd.errors import UserError
from mixskd.runtime.files import check_writable
from mixskd.training.factory import build_parts
from mixskd.training.parts import Parts
from mixskd.training.trainer import step_seed

SMOOTHING = 0.95  # of the moving average of the loss
DIVERGED = 4.0  # the test ends where the smoothed loss is this many times its lowest value
MARGIN = 10.0  # the suggestion is the rate of the lowest loss divided by this
RULE = "a tenth of the rate at which the smoothed loss is lowest"


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test.

    Args:
        rates: the learning rate of each step.
        losses: the loss of each step, as a moving average without bias.
        suggestion: the rate to start with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_lr(
    experiment: Experiment,
    out: str | Path = "lr.png",
    *,
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 10.0,
) -> RangeTest:
    """The range test of ``experiment``, with its curve as a picture in ``out`` (PNG, or SVG by its ending).

    No run is written. Raises UserError for anything in the experiment that cannot work, and if the loss is not finite
    from the start.
    """
    out = Path(out)
    if out.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{out} must end in .png or .svg")
    _check_range(steps, lowest, highest)
    parts = build_parts(experiment)
    check_writable(out)
    try:
        found = range_test(parts, steps=steps, lowest=lowest, highest=highest)
    finally:
        parts.step.close()
    draw(found, out)
    return found


def range_test(parts: Parts, *, steps: int = 100, lowest: float = 1e-6, highest: float = 10.0) -> RangeTest:
    """Train up to ``steps`` steps while the rate grows from ``lowest`` to ``highest`` by the same factor each step.

    It ends early where the loss diverges. Afterwards weights, optimizer and torch's random state are as before.
    Raises UserError if the loss is not finite within the first steps.
    """
    _check_range(steps, lowest, highest)
    before, random = copy.deepcopy(parts.step.state_dict()), torch.get_rng_state()
    rates, losses, average, best = [], [], 0.0, math.inf
    try:
        for step, batch in zip(range(steps), chain.from_iterable(map(parts.loader.epoch, count())), strict=False):
            rate = lowest * (highest / lowest) ** (step / max(steps - 1, 1))
            terms = parts.step(batch, rate, step_seed(parts.experiment.run.seed, step, parts.world.rank))
            loss = terms["loss"].item()
            if not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smoothed = average / (1 - SMOOTHING ** (step + 1))
            rates.append(rate)
            losses.append(smoothed)
            best = min(best, smoothed)
            if smoothed > DIVERGED * best:
                break
    finally:
        parts.step.load_state_dict(before)  # type: ignore[arg-type]
        torch.set_rng_state(random)
    if len(rates) < 3:
        raise UserError(f"the loss is not finite at a rate of {lowest:g}; look at the images with mixskd show-data")
    return RangeTest(tuple(rates), tuple(losses), suggest(rates, losses))


def suggest(rates: list[float], losses: list[float]) -> float:
    """A tenth of the rate with the lowest loss, with two significant digits."""
    lowest = rates[min(range(len(losses)), key=losses.__getitem__)]
    return float(f"{lowest / MARGIN:.2g}")


def draw(found: RangeTest, out: Path) -> None:
    """Write the curve to ``out``."""
    from mixskd.drawing.plots import line_plot, styled  # matplotlib is not needed for training

    caption = f"Range test; suggestion {found.suggestion:g}: {RULE}."
    plot = line_plot("lr", caption, [("smoothed loss", found.rates, found.losses)], "learning rate", "loss", log_x=True)
    axes = plot.figure.axes[0]
    axes.axvline(found.suggestion, color="grey", linestyle=":", linewidth=1)
    with styled():
        plot.figure.savefig(out)


def _check_range(steps: int, lowest: float, highest: float) -> None:
    if steps < 10:
        raise UserError(f"--steps must be 10 or more, not {steps}")
    if not 0 < lowest < highest:
        raise UserError(f"--lowest must be above 0 and below --highest, not {lowest:g} and {highest:g}")
