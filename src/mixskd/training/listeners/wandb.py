"""Losses and scores for Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from mixskd.config import flatten, to_dict
from mixskd.errors import UserError, first_line
from mixskd.runtime.files import slug
from mixskd.training.listeners.base import RunInfo
from mixskd.training.listeners.service import Service


class WandB(Service):
    """A run of the project ``mixskd``, which a resumed run continues. ``WANDB_MODE=offline`` keeps it on this machine.

    Raises UserError if wandb cannot start.
    """

    name = "wandb"

    def start(self, info: RunInfo) -> None:
        import wandb

        super().start(info)
        identity = slug(str(info.folder.resolve()))[-120:]
        try:
            self.client = wandb.init(
                project="mixskd", name=info.folder.name, id=identity, resume="allow", dir=str(info.folder),
                config=flatten(to_dict(info.experiment)),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise UserError(f"wandb cannot start: {first_line(error)}; log in, or WANDB_MODE=offline") from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.client.log(dict(values), step)

    def end(self, summary: Mapping[str, Any]) -> None:
        self.client.summary.update(self.final_scores(summary))

    def close(self) -> None:
        if self.client is not None:
            self.client.finish()
