"""Losses and scores for Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from mixskd.config import flatten, to_dict
from mixskd.errors import UserError
from mixskd.runtime.files import slug
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo


class WandB(Listener):
    """One run of the project ``mixskd``; a resumed run is the same run. ``WANDB_MODE=offline`` keeps it on this
    machine.

    Raises UserError if wandb is not installed, or cannot start.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("run.wandb needs wandb: pip install 'mixskd[wandb]'")
        self.run: Any = None

    def start(self, info: RunInfo) -> None:
        import wandb

        self.log_every = info.experiment.run.log_every
        name = slug(str(info.folder.resolve()))[-120:]
        try:
            self.run = wandb.init(
                project="mixskd", name=info.folder.name, id=name, resume="allow", dir=str(info.folder),
                config=flatten(to_dict(info.experiment)),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise UserError(
                f"wandb cannot start: {str(error).splitlines()[0]}; log in, or WANDB_MODE=offline"
            ) from None

    def step(self, info: StepInfo) -> None:
        if info.step % self.log_every == 0:
            self.run.log({f"step/{name}": value for name, value in {**info.losses(), "lr": info.lr}.items()}, info.step)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.run.log({name.replace("_", "/", 1): value for name, value in row.items()}, int(row["step"]))

    def end(self, summary: Mapping[str, Any]) -> None:
        self.run.summary.update({f"final/{name}": value for name, value in flatten(summary["scores"]).items()})

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()
