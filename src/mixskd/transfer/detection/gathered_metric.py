"""COCO's metric over the images of all processes, gathered by one collective."""

from __future__ import annotations

from typing import Any

import numpy as np
from torchmetrics.detection import MeanAveragePrecision

from mixskd.runtime.distributed import World


class GatheredPrecision(MeanAveragePrecision):
    """Average precision and recall of boxes as COCO defines them.

    torchmetrics gathers the entry of each image by a collective of its own, which fails if the processes have different
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
