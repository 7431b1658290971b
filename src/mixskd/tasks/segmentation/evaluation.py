"""Mean intersection over union from one confusion matrix of all pixels of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixskd.tasks.segmentation.data import IGNORE

if TYPE_CHECKING:
    from torchmetrics.classification import MulticlassConfusionMatrix


class PixelScores:
    """Counts pixels over a data set; with several processes over the parts of all.

    ``released_classes`` adds the mean over that number of classes, with 0 for those that are absent.
    """

    def __init__(self, classes: Sequence[str], device: torch.device | str = "cpu", released: int | None = None) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.classes, self.released = tuple(classes), released
        self.matrix: MulticlassConfusionMatrix = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=IGNORE, validate_args=False
        ).to(device)

    def update(self, logits: Tensor, masks: Tensor) -> None:
        """Add the pixels of ``logits`` ``B x N x H x W`` and ``masks`` ``B x H x W``."""
        self.matrix.update(logits.argmax(1), masks)

    def compute(self) -> dict[str, Any]:
        """See :func:`scores_of`."""
        return scores_of(self.matrix.compute(), self.classes, self.released)


def scores_of(confusion: Tensor, classes: Sequence[str], released: int | None = None) -> dict[str, Any]:
    """``miou``, ``pixel_accuracy`` and ``per_class`` in per cent of a matrix ``N x N`` (row: truth, column: found).

    A class that is absent, neither in the masks nor found, has None and does not enter the mean; ``absent`` names it.
    ``miou_released`` is the mean over ``released`` classes with 0 for those that are absent, as the released code of
    MixSKD takes it for COCO-Stuff.
    """
    counts = confusion.to(torch.float64)
    hits = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hits
    present = union > 0
    iou = 100 * hits / union
    scores: dict[str, Any] = {
        "miou": _rounded(iou[present].mean()) if present.any() else None,
        "pixel_accuracy": _rounded(100 * hits.sum() / counts.sum()) if counts.sum() > 0 else None,
    }
    if released is not None:
        scores["miou_released"] = _rounded(iou[present].sum() / released)
    flags = present.tolist()
    scores["per_class"] = {
        name: _rounded(value) if there else None for name, value, there in zip(classes, iou, flags, strict=True)
    }
    scores["absent"] = [name for name, there in zip(classes, flags, strict=True) if not there]
    return scores


def _rounded(value: Tensor) -> float:
    return round(float(value), 4)
