"""One class index an image."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection


class MeanCrossEntropy(Metric):
    """The mean softmax cross-entropy of logits ``B x N`` with class indices ``B``."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.total += F.cross_entropy(logits, labels, reduction="sum")
        self.count += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.count


class Classification:
    """``classes`` classes; scores are ``top1`` and ``top5`` in per cent, and ``loss``, the mean cross-entropy.

    Top-5 is top-N where there are fewer than five classes.
    """

    monitor = "top1"
    names: tuple[str, ...] = ("top1", "top5", "loss")

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def metrics(self) -> MetricCollection:
        # Imported here: it takes a second, which a run's first step need not wait for.
        from torchmetrics.classification import MulticlassAccuracy

        accuracies: dict[str, Metric] = {
            f"top{k}": MulticlassAccuracy(self.classes, top_k=min(k, self.classes), average="micro") for k in (1, 5)
        }
        return MetricCollection({**accuracies, "loss": MeanCrossEntropy()}, compute_groups=False)

    def predict(self, model: nn.Module, images: Any) -> Tensor:
        logits: Tensor = model(images)
        return logits.float()

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        # The metrics are fp32, and the digits beyond these are its rounding.
        percent = {name: round(100 * values[name].item(), 5) for name in ("top1", "top5")}
        return {**percent, "loss": values["loss"].item()}
