"""The budget of each rung in counted training operations, and the epochs that a trial can make with it."""

from dataclasses import dataclass

from mixskd.comparison.budgets import Operations, lasting
from mixskd.config import Experiment
from mixskd.data import DataBundle

FACTOR = 3  # of the operations of a rung over those of the rung before, and of the trials that end in it
MOST_RUNGS = 3
SHORTEST = 2  # epochs of the recipe in the first rung; fewer say little
SHARE = 4  # the last rung takes at most one part in so many of the whole budget


@dataclass(frozen=True)
class Rungs:
    """The training operations (FLOPs) of a run at each rung, the last one largest."""

    operations: tuple[float, ...]

    @property
    def last(self) -> int:
        return len(self.operations) - 1

    def resource(self, rung: int) -> int:
        """What Optuna's successive halving counts: 1, 3, 9."""
        return int(FACTOR**rung)


def rungs_for(full: float, epochs: float) -> Rungs:
    """Rungs up to ``full`` operations, which pay ``epochs`` of the recipe; the first pays ``SHORTEST`` or more."""
    number = 1
    while number < MOST_RUNGS and epochs / FACTOR**number >= SHORTEST:
        number += 1
    return Rungs(tuple(full / FACTOR**back for back in reversed(range(number))))


class Costs:
    """The training operations (FLOPs) of experiments on ``data``."""

    def __init__(self, data: DataBundle) -> None:
        self.data, self._operations = data, Operations()

    def epoch(self, experiment: Experiment) -> float:
        """The operations of one epoch. Raises UserError for a method that refuses the backbone."""
        return self._operations.of_epoch(experiment, self.data)

    def fitted(self, experiment: Experiment, operations: float) -> Experiment:
        """``experiment`` with the epochs that ``operations`` pay, 1 or more; warm-up and milestones scale with them."""
        epochs = max(1, int(operations / self.epoch(experiment) + 1e-6))
        return lasting(experiment, epochs)

    def whole(self, experiment: Experiment) -> float:
        """The operations of the whole run."""
        return self.epoch(experiment) * experiment.run.epochs
