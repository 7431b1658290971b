"""Select the epoch whose weights are deployed, and stop a run early: by the score on ``val``, never on ``test``."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mixskd.config import RunConfig
from mixskd.data import DataBundle

Row = Mapping[str, float]


class Selection:
    """Applies ``run.keep`` and ``run.patience`` to ``monitor``, a score of the task; higher is better. Patience counts
    from the epoch ``since`` on, the last restart of the schedule.

    ``state`` is the best epoch so far with a copy of its weights on the CPU, or None; it is a part of the checkpoint.
    """

    def __init__(self, run: RunConfig, data: DataBundle, monitor: str, since: int = 0) -> None:
        self.monitor = f"{data.scored}_{monitor}"
        self.since = since
        self.selects = "val" in data.splits
        self.keep_best = self.selects and run.keep != "last"
        self.patience = run.patience if self.selects else 0
        self.state: dict[str, Any] | None = None

    def consider(self, row: Row, model: nn.Module) -> None:
        """Keep a copy of ``model`` if the epoch of ``row`` is the best so far."""
        if not self.keep_best or self.monitor not in row:
            return
        if self.state is None or row[self.monitor] > self.state["score"]:
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.state = {"epoch": row["epoch"], "score": row[self.monitor], "weights": weights}

    def best(self, rows: Sequence[Row]) -> Row:
        """The row of the highest score; the first of several."""
        return max((row for row in rows if self.monitor in row), key=lambda row: row[self.monitor])

    def exhausted(self, rows: Sequence[Row]) -> bool:
        """Whether the last ``patience`` evaluations brought no better score."""
        scores = [row[self.monitor] for row in rows[self.since :] if self.monitor in row]
        return 0 < self.patience < len(scores) and scores.index(max(scores)) < len(scores) - self.patience

    def choose(self, rows: Sequence[Row], model: nn.Module) -> Row:
        """The row of the epoch that is deployed, whose weights are loaded into ``model``."""
        if self.state is None:
            return rows[-1]
        model.load_state_dict(self.state["weights"])
        return next(row for row in rows if row["epoch"] == self.state["epoch"])
