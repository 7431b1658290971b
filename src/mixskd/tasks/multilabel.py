"""Several labels an image, or none: each class is there or not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.tasks.base import LabelTask
from mixskd.tasks.thresholds import USUAL

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def label_scores(p: Tensor, labels: Tensor, thresholds: Tensor) -> dict[str, Tensor]:
    """Of probabilities and labels ``N x C``: ``ap`` and ``class_f1`` by class, and their means ``map``, ``f1_macro``,
    over the classes that an image has; ``f1`` over all labels of all images together (micro).

    A label is predicted where its probability is not below its class's threshold.
    """
    # Imported here: it takes a second, which a run's first step need not wait for.
    from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

    classes, seen = p.shape[1], labels.sum(0) > 0
    predicted = (p >= thresholds.to(p)).long()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive samples")
        ap = multilabel_average_precision(p, labels, classes, average="none").to(p.dtype)
    by_class = multilabel_f1_score(predicted, labels, classes, average="none")
    return {
        "ap": ap,
        "class_f1": by_class,
        "map": ap[seen].mean(),
        "f1_macro": by_class[seen].mean(),
        "f1": multilabel_f1_score(predicted, labels, classes, average="micro"),
    }


def binary_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The binary cross-entropy of ``N x C``, summed over the classes, its mean over the images."""
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(1).mean()


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
