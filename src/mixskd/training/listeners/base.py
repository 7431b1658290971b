"""The base class of listeners: they are called as a run proceeds, and change nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixskd.config import Experiment

if TYPE_CHECKING:
    from mixskd.training.parts import Examples


@dataclass(frozen=True)
class RunInfo:
    """A run that starts or is resumed.

    Args:
        experiment: what is trained.
        folder: the run's folder.
        steps_per_epoch: optimizer steps in an epoch.
        step: the steps that a resumed run took before.
        rows: the rows of metrics.csv of the epochs that it finished before.
        monitor: the column of metrics.csv that selects weights, such as ``val_top1``.
        description: lines for a person: data, backbone, method, device, steps.
        notes: warnings for a person.
        examples: computes a few images and mixes with their predictions; to be called between two epochs. None for
            tasks without classes.
    """

    experiment: Experiment
    folder: Path
    steps_per_epoch: int
    step: int
    rows: Sequence[Mapping[str, float]]
    monitor: str
    description: Sequence[str] = ()
    notes: Sequence[str] = ()
    examples: Callable[[], Examples] | None = None


@dataclass(frozen=True)
class StepInfo:
    """The state of a run after a step.

    Args:
        step: the number of steps so far, this one included.
        epoch: the 0-based epoch.
        images: the number of training images so far.
        lr: the learning rate of the next step.
        sums: returns the sum of each loss term, by name, over the ``count`` steps of this epoch.
        count: the steps of this epoch so far.
    """

    step: int
    epoch: int
    images: int
    lr: float
    sums: Callable[[], Mapping[str, float]]
    count: int

    def losses(self) -> dict[str, float]:
        """The mean of each loss term in this epoch so far. It waits for the device, so do not call it at every step."""
        return {name: value / max(self.count, 1) for name, value in self.sums().items()}


class Listener:
    """Called at a run's start, steps, epochs and end; the methods here do nothing. Only the first process has
    listeners.

    ``epoch`` gets the row of metrics.csv, ``end`` the summary. ``close`` is called at the end, even of a failed run.
    """

    def start(self, info: RunInfo) -> None:
        """The run begins or is resumed."""

    def step(self, info: StepInfo) -> None:
        """A step was taken."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is finished."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """The run is finished."""

    def close(self) -> None:
        """Close files and screens."""
