"""Losses, scores and pictures for TensorBoard, under ``tensorboard/`` of the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixskd.config import flatten, to_dict
from mixskd.training.listeners.base import RunInfo
from mixskd.training.listeners.service import Service

if TYPE_CHECKING:
    import numpy as np

    from mixskd.training.parts import Examples


PICTURES = 10  # in a run, the first after the first epoch and the last after the last


class TensorBoard(Service):
    """Losses and scores, the settings beside the final scores, and ``PICTURES`` times in a run a grid of images and
    mixes with the two likeliest classes of each. A resumed run shows no step twice.
    """

    name = "tensorboard"

    def start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().start(info)
        self.examples, self.picture_every = info.examples, max(info.experiment.run.epochs // (PICTURES - 1), 1)
        self.client = SummaryWriter(str(info.folder / "tensorboard"), purge_step=info.step + 1 if info.step else None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.add_scalar(name, value, step)

    def epoch(self, row: Mapping[str, float]) -> None:
        super().epoch(row)
        epoch, epochs = int(row["epoch"]), self.experiment.run.epochs
        if self.examples is not None and (epoch in (1, epochs) or epoch % self.picture_every == 0):
            self.client.add_image("mixes", _drawn(self.examples()), int(row["step"]), dataformats="HWC")

    def end(self, summary: Mapping[str, Any]) -> None:
        settings = {key: value if isinstance(value, bool | int | float | str) else str(value)
                    for key, value in flatten(to_dict(self.experiment)).items()}  # fmt: skip
        self.client.add_hparams(settings, self.final_scores(summary), run_name=".")

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


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
