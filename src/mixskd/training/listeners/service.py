"""Base class of the listeners for experiment trackers."""

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar

from mixskd.config import flatten
from mixskd.errors import UserError
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo


class Service(Listener):
    """Logs the losses every ``log_every`` steps, each row of metrics.csv by its last step, and the final scores.

    Raises UserError if the package of the service, which has its ``name``, is not installed.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        if importlib.util.find_spec(self.name) is None:
            raise UserError(f"run.{self.name} needs {self.name}: pip install 'mixskd[{self.name}]'")
        self.client: Any = None  # None until the service has started

    def start(self, info: RunInfo) -> None:
        self.experiment, self.log_every = info.experiment, info.experiment.run.log_every

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send ``values`` of ``step``."""
        raise NotImplementedError

    def step(self, info: StepInfo) -> None:
        if info.step % self.log_every == 0:
            self.log({f"step/{name}": value for name, value in {**info.losses(), "lr": info.lr}.items()}, info.step)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.log({name.replace("_", "/", 1): row[name] for name in row if name != "step"}, int(row["step"]))

    def final_scores(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """The scores of the ``summary`` under the names that the services show."""
        return {f"final/{name}": value for name, value in flatten(summary["scores"]).items()}
