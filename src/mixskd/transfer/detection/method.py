"""Detectors as methods of the trainer: a module that turns a batch into named losses."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixskd.backbones import StagedBackbone
from mixskd.data.needs import DataNeeds
from mixskd.methods.hooks import Hooks
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.loading import targets_of
from mixskd.transfer.detection.model import Detector


class DetectionMethod(Hooks, nn.Module):
    """Trains a detector; the attribute ``backbone`` is the whole detector, which is deployed."""

    Config: ClassVar[type] = DetectorConfig
    taught_by: ClassVar[str | None] = None
    architecture: ClassVar[str]

    def __init__(self, backbone: StagedBackbone, classes: int, config: DetectorConfig) -> None:
        super().__init__()
        self.config, self.needs = config, DataNeeds()
        self.backbone = Detector(backbone, classes, config, architecture=self.architecture)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """None: torchvision's samplers draw within ``forward``, from the generator that the step seeds."""
        return None

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, *, sizes: Tensor) -> dict[str, Tensor]:
        """``loss`` and its terms of ``images`` ``B x 3 x H x W``, ``labels`` ``B x M x 5`` (label and box; label -1 for
        none) and ``sizes`` ``B x 2`` (height and width without the padding).
        """
        terms = self.backbone.losses(images, [(int(h), int(w)) for h, w in sizes.tolist()], targets_of(labels))
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}


class CascadeRCNN(DetectionMethod):
    """Cascade R-CNN, as in MixSKD's Table 3."""

    architecture = "cascade_rcnn"


class FasterRCNN(DetectionMethod):
    """torchvision's Faster R-CNN."""

    architecture = "faster_rcnn"
