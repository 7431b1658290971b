"""Losses and scores for TensorBoard, under ``tensorboard/`` of the run's folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixskd.config import flatten, to_dict
from mixskd.errors import UserError
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo

if TYPE_CHECKING:
    import numpy as np

    from mixskd.training.examples import Examples


PICTURES = 10  # in a run, the first after the first epoch and the last after the last


class TensorBoard(Listener):
    """Every row of metrics.csv by its epoch's last step, the losses every ``log_every`` steps, the settings with the
    final scores, and ``PICTURES`` times in a run a grid of images and mixes with the two likeliest classes of each.

    A run that goes on shows no step twice. Raises UserError if tensorboard is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("run.tensorboard needs tensorboard: pip install 'mixskd[tensorboard]'")
        self.writer: Any = None

    def start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.log_every, self.experiment = info.experiment.run.log_every, info.experiment
        self.examples, self.picture_every = info.examples, max(info.experiment.run.epochs // (PICTURES - 1), 1)
        self.writer = SummaryWriter(str(info.folder / "tensorboard"), purge_step=info.step + 1 if info.step else None)

    def step(self, info: StepInfo) -> None:
        if info.step % self.log_every == 0:
            for name, value in {**info.losses(), "lr": info.lr}.items():
                self.writer.add_scalar(f"step/{name}", value, info.step)

    def epoch(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name.replace("_", "/", 1), value, int(row["step"]))
        epoch, epochs = int(row["epoch"]), self.experiment.run.epochs
        if self.examples is not None and (epoch in (1, epochs) or epoch % self.picture_every == 0):
            self.writer.add_image("mixes", _drawn(self.examples()), int(row["step"]), dataformats="HWC")

    def end(self, summary: Mapping[str, Any]) -> None:
        settings = {key: value if isinstance(value, bool | int | float | str) else str(value)
                    for key, value in flatten(to_dict(self.experiment)).items()}  # fmt: skip
        scores = {f"final/{name}": value for name, value in flatten(summary["scores"]).items()}
        self.writer.add_hparams(settings, scores, run_name=".")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _drawn(examples: Examples) -> np.ndarray:
    """The picture of ``examples``, uint8 ``H x W x 3``."""
    from mixskd.drawing.picture import cells, rendered
    from mixskd.drawing.plots import label

    columns = {
        title: cells(
            images, ["\n".join(label(line, 24) for line in text.splitlines()) for text in texts],
            examples.mean, examples.std,
        )
        for title, (images, texts) in examples.columns.items()
    }  # fmt: skip
    return rendered(columns)
