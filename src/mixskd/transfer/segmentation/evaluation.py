"""Mean intersection over union from one confusion matrix of all pixels of a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mixskd.errors import UserError
from mixskd.tasks.base import Task
from mixskd.transfer.segmentation.data import IGNORE


class Segmentation(Task):
    """A class for every pixel; scores are ``miou`` and ``pixel_accuracy`` in per cent, over a whole split.

    ``released_classes`` adds ``miou_released``, the mean over that number of classes with 0 for those that are absent.
    """

    monitor = "miou"

    def __init__(self, classes: Sequence[str], released_classes: int | None = None) -> None:
        self.classes, self.released_classes = tuple(classes), released_classes
        self.names = ("miou", "pixel_accuracy", *(["miou_released"] if released_classes else []))

    def metrics(self) -> MetricCollection:
        from torchmetrics.classification import MulticlassConfusionMatrix

        matrix = MulticlassConfusionMatrix(len(self.classes), ignore_index=IGNORE, validate_args=False)
        return MetricCollection({"confusion": matrix})

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """The class of each pixel, ``B x H x W``."""
        classes: Tensor = model(images).argmax(1)
        return classes

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """``miou``, ``pixel_accuracy`` and perhaps ``miou_released``. Raises UserError if every pixel is ignored."""
        found = self.details(values)
        if found["pixel_accuracy"] is None:
            raise UserError("every pixel of the images is ignored, so there are no scores")
        return {name: found[name] for name in self.names if found[name] is not None}

    def details(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """The scores with those of each class, see :func:`scores_of`."""
        return scores_of(values["confusion"], self.classes, self.released_classes)


def scores_of(confusion: Tensor, classes: Sequence[str], released: int | None = None) -> dict[str, Any]:
    """``miou``, ``pixel_accuracy`` and ``per_class`` in per cent of a matrix ``N x N`` (row: truth, column: found).

    A class that is neither in the masks nor in the predictions is absent: its score is None, it does not count in the
    mean, and ``absent`` names it. ``miou_released`` is the mean over ``released`` classes with 0 for absent ones, as
    MixSKD's released code computes it for COCO-Stuff.
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


def mask_results(classes: Tensor, image_id: int) -> list[dict[str, Any]]:
    """An entry of COCO's results format for each class in ``classes`` (``H x W``); category ids are class indices."""
    return [
        {"image_id": image_id, "category_id": int(k), "segmentation": run_lengths((classes == k).numpy()), "score": 1.0}
        for k in classes.unique()
    ]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """A boolean mask ``H x W`` as COCO's uncompressed RLE: run lengths by columns, the first one of False."""
    flat = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat, prepend=0)) if len(flat) else np.zeros(0, dtype=np.int64)
    counts = np.diff(np.concatenate([[0], ends, [len(flat)]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}
