"""COCO's average precision and recall of detections, through torchmetrics and faster-coco-eval."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.detection import MeanAveragePrecision

from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.tasks.base import Task


class GatheredPrecision(MeanAveragePrecision):
    """Average precision and recall of boxes as COCO defines them.

    torchmetrics gathers the entry of each image by one collective, which fails if the processes have different
    numbers of images. Here each process gives all of its entries at once.
    """

    def __init__(self, world: World) -> None:
        # torchmetrics' own thresholds are rounded to fp32, which decides otherwise than COCO if an IoU equals one.
        super().__init__(
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            class_metrics=True,
            backend="faster_coco_eval",
            sync_on_compute=False,
        )
        self.warn_on_many_detections = False
        self.world = world

    def compute(self) -> dict[str, Any]:
        """The scores of all images of all processes, by torchmetrics' names."""
        own = {name: list(value) for name, value in self.metric_state.items()}
        parts = self.world.gather(own)
        for name in own:
            setattr(self, name, [value for part in parts for value in part[name]])
        try:
            found: dict[str, Any] = super().compute()
        finally:
            for name, value in own.items():
                setattr(self, name, value)
        return found


NAMES = {
    "map": "ap", "map_50": "ap50", "map_75": "ap75", "map_small": "ap_small", "map_medium": "ap_medium",
    "map_large": "ap_large", "mar_1": "ar1", "mar_10": "ar10", "mar_100": "ar100", "mar_small": "ar_small",
    "mar_medium": "ar_medium", "mar_large": "ar_large",
}  # fmt: skip


class Detection(Task):
    """Boxes of ``classes`` in the pixels of the image files; scores are COCO's, in per cent.

    ``ap`` is the average precision, as the mean over the IoUs 0.5 to 0.95; ``ap50`` and ``ap75`` are those at one IoU.
    ``ar1``, ``ar10`` and ``ar100`` are the average recall with that number of detections per image. ``small``,
    ``medium`` and ``large`` are objects of up to 32 x 32, up to 96 x 96 and more pixels. A size without ground-truth
    objects has no score.
    """

    monitor = "ap"
    names = tuple(NAMES.values())

    def __init__(self, classes: Sequence[str], world: World | None = None) -> None:
        self.classes, self.world = tuple(classes), world or World()

    def metrics(self) -> MetricCollection:
        """Raises UserError if faster-coco-eval is not installed."""
        check_installed()

        return MetricCollection({"coco": GatheredPrecision(self.world)})

    def predict(self, model: nn.Module, images: Mapping[str, Any]) -> list[dict[str, Tensor]]:
        """The detections of a batch (``images``, ``sizes`` and the ``files``' sizes), in the pixels of the files."""
        found = model(images["images"], [tuple(size) for size in images["sizes"]])
        return [
            in_file_pixels(one, size, file)
            for one, size, file in zip(found, images["sizes"], images["files"], strict=True)
        ]

    def scores(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The scores that exist, by the names in ``names``."""
        return {name: percent(values[key]) for key, name in NAMES.items() if values[key] >= 0}

    def details(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """``per_class``: the ``ap`` of each class, None for one without a ground-truth object."""
        found: dict[str, float | None] = dict.fromkeys(self.classes)
        for label, value in zip(values["classes"].reshape(-1), values["map_per_class"].reshape(-1), strict=True):
            found[self.classes[int(label) - 1]] = None if value < 0 else percent(value)
        return {"per_class": found}


def percent(value: Tensor) -> float:
    """``value`` in per cent."""
    return round(100 * float(value), 4)


def in_file_pixels(detection: dict[str, Tensor], size: Sequence[int], file: Sequence[int]) -> dict[str, Tensor]:
    """``detection``, made on an image of ``size`` (height, width), in the pixels of its ``file`` (height, width)."""
    scale = torch.tensor([file[1] / size[1], file[0] / size[0]] * 2, device=detection["boxes"].device)
    return {**detection, "boxes": detection["boxes"] * scale}


def coco_results(detection: dict[str, Tensor], image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The detections of one image as entries of COCO's results format; boxes are x, y, width, height.

    Nothing is rounded, so that the scores of the entries are those of the detections.
    """
    boxes = detection["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detection["scores"].tolist(), detection["labels"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, score, label in rows
    ]


def check_installed() -> None:
    """Raises UserError if the library that scores detections is missing."""
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise UserError("detection needs faster-coco-eval: pip install 'mixskd[detection]'")
