"""One class index an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mixskd.tasks.base import LabelTask

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Classification(LabelTask):
    """``classes`` classes; scores are ``top1`` and ``top5`` in per cent, and ``loss``, the mean cross-entropy.

    Top-5 is top-N where there are fewer than five classes.
    """

    name = "classification"
    monitor = "top1"
    names: tuple[str, ...] = ("top1", "top5", "loss")

    def __init__(self, classes: int) -> None:
        self.classes, self.thresholds = classes, ()

    def metrics(self) -> MetricCollection:
        # Imported here: it takes a second, which a run's first step and a probe need not wait for.
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        from mixskd.tasks.metrics import MeanCrossEntropy

        accuracies: dict[str, Metric] = {
            f"top{k}": MulticlassAccuracy(self.classes, top_k=min(k, self.classes), average="micro") for k in (1, 5)
        }
        return MetricCollection({**accuracies, "loss": MeanCrossEntropy()}, compute_groups=False)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def label_names(self, labels: Tensor, classes: Sequence[str]) -> list[str]:
        return [str(classes[i]) for i in (labels if labels.ndim == 1 else labels.argmax(1)).tolist()]
