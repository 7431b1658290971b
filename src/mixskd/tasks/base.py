"""The interface of a task: the targets of a batch, and how predictions are scored."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torchmetrics import MetricCollection


class Task(Protocol):
    """What a label is: a class index, boxes, a mask. A trainer and an evaluation ask a task for all that depends on it.

    ``names`` are those of its scores. ``monitor`` is the score by which weights are selected and which a person sees
    while it trains; higher is better.
    """

    monitor: str
    names: tuple[str, ...]

    def metrics(self) -> MetricCollection:
        """New metrics, which take predictions and targets batch by batch, and add up over processes."""
        ...

    def predict(self, model: nn.Module, images: Any) -> Any:
        """What the metrics take for a batch of images."""
        ...

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """What the metrics computed, as plain numbers in the units that a person reads."""
        ...
