"""Several labels an image, or none: each class is there or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixskd.tasks.base import LabelTask
from mixskd.tasks.thresholds import USUAL

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class MultiLabel(LabelTask):
    """``classes`` classes, each there or not. Scores in per cent: ``map``, the mean over the classes of their average
    precision; ``f1``, of all labels together; ``f1_macro``, the mean over the classes. ``loss`` is the mean over the
    images of the binary cross-entropy, summed over the classes.

    F1 is that at ``thresholds``, a probability a class, which :meth:`fit` finds; 0.5 before.
    """

    name = "multilabel"
    monitor = "map"
    names: tuple[str, ...] = ("map", "f1", "f1_macro", "loss")
    fits = True

    def __init__(self, classes: int, thresholds: Sequence[float] = ()) -> None:
        self.thresholds = list(thresholds) or [USUAL] * classes

    def metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from mixskd.tasks.metrics import LabelScores

        return MetricCollection({"scores": LabelScores(torch.tensor(self.thresholds, dtype=torch.float64))})

    def fit(self, values: Mapping[str, Tensor]) -> None:
        self.thresholds = values["best_thresholds"].tolist()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def label_names(self, labels: Tensor, classes: Sequence[str]) -> list[str]:
        return [", ".join(classes[i] for i in row.nonzero()[:, 0].tolist()) or "none" for row in labels]
