"""COCO's average precision of detections, through torchmetrics and faster-coco-eval."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mixskd.errors import UserError
from mixskd.tasks.detection.coco import AnnotatedImage, DetectionSet

if TYPE_CHECKING:
    from torchmetrics.detection import MeanAveragePrecision

NAMES = {"map": "ap", "map_50": "ap50", "map_75": "ap75", "map_small": "ap_small", "map_medium": "ap_medium",
         "map_large": "ap_large"}  # fmt: skip


class CocoScores:
    """Collects detections in the pixels of the image files; its scores are COCO's, in per cent.

    Raises UserError if faster-coco-eval is not installed.
    """

    def __init__(self, split: DetectionSet) -> None:
        check_installed()
        from torchmetrics.detection import MeanAveragePrecision

        self.split = split
        # torchmetrics' own thresholds are rounded to fp32, which decides otherwise than COCO where an IoU equals one.
        self.metric: MeanAveragePrecision = MeanAveragePrecision(
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            class_metrics=True,
            backend="faster_coco_eval",
        )
        self.metric.warn_on_many_detections = False

    def update(self, indices: Sequence[int], detections: Sequence[dict[str, Tensor]]) -> None:
        """Add the ``detections`` (``boxes``, ``scores``, ``labels``) of the images at ``indices`` of the split."""
        found = [{name: value.cpu() for name, value in detection.items()} for detection in detections]
        self.metric.update(found, [truth(self.split.images[index]) for index in indices])

    def compute(self) -> dict[str, Any]:
        """``ap``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large`` and ``per_class``, in per cent.

        A size or a class without a ground-truth object has None.
        """
        scores = self.metric.compute()
        values = {name: percent(scores[key]) for key, name in NAMES.items()}
        per_class: dict[str, float | None] = dict.fromkeys(self.split.classes)
        for label, value in zip(scores["classes"].reshape(-1), scores["map_per_class"].reshape(-1), strict=True):
            per_class[self.split.classes[int(label) - 1]] = percent(value)
        return {**values, "per_class": per_class, "images": len(self.split)}


def percent(value: Tensor) -> float | None:
    """``value`` in per cent; None for COCO's -1, which says that there was nothing to find."""
    return None if value < 0 else round(100 * float(value), 4)


def truth(image: AnnotatedImage) -> dict[str, Tensor]:
    """The ground truth of ``image`` as torchmetrics takes it."""
    return {
        "boxes": image.boxes,
        "labels": image.labels,
        "iscrowd": image.crowd.to(torch.int64),
        "area": image.area,
    }


def in_file_pixels(detection: dict[str, Tensor], size: tuple[int, int], image: AnnotatedImage) -> dict[str, Tensor]:
    """``detection``, made on ``image`` resized to ``size`` (height, width), in the pixels of the file."""
    height, width = size
    scale = detection["boxes"].new_tensor([image.width / width, image.height / height] * 2)
    return {**detection, "boxes": detection["boxes"] * scale}


def coco_results(split: DetectionSet, index: int, detection: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The detections of one image as entries of COCO's results format; boxes are x, y, width, height."""
    boxes = detection["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detection["scores"].tolist(), detection["labels"].tolist(), strict=True)
    return [
        {
            "image_id": split.images[index].id,
            "category_id": split.category_ids[label - 1],
            "bbox": [round(x, 2) for x in box],
            "score": round(score, 5),
        }
        for box, score, label in rows
    ]


def check_installed() -> None:
    """Raises UserError if the library that scores detections is missing."""
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise UserError("detection needs faster-coco-eval: pip install 'mixskd[detection]'")
