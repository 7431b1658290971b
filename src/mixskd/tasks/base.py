"""The interface of a task: the targets of a batch, and how predictions are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Task(Protocol):
    """What a label is: a class index, boxes, a mask. A trainer and an evaluation ask a task for all that depends on it.

    ``names`` are those of its scores. ``monitor`` is the score by which weights are selected and which a person sees
    while it trains; higher is better. A task that ``fits`` learns from the scores on ``val`` by :meth:`fit`, once the
    weights are chosen.
    """

    monitor: str
    names: tuple[str, ...]
    fits: ClassVar[bool] = False

    def metrics(self) -> MetricCollection:
        """New metrics, which take predictions and targets batch by batch, and add up over processes."""
        ...

    def predict(self, model: nn.Module, images: Any) -> Any:
        """What the metrics take for a batch of images."""
        ...

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """What the metrics computed, as plain numbers in the units that a person reads."""
        ...

    def fit(self, values: Mapping[str, Tensor]) -> None:
        """Keep what the metrics found on ``val``, such as thresholds."""
        return


class LabelTask(Task, Protocol):
    """A task whose labels are classes of a whole image; ``name`` is that in model files and summaries."""

    name: ClassVar[str]
    thresholds: Sequence[float]

    def predict(self, model: nn.Module, images: Any) -> Tensor:
        logits: Tensor = model(images)
        return logits.float()

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """All but ``loss`` in per cent."""
        # The metrics are fp32, and the digits beyond these are its rounding.
        percent = {name: round(100 * values[name].item(), 5) for name in self.names if name != "loss"}
        return {**percent, "loss": values["loss"].item()}

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities of the classes, ``B x N``, from logits."""
        ...

    def label_names(self, labels: Tensor, classes: Sequence[str]) -> list[str]:
        """Each image's label, or labels, for a person."""
        ...
