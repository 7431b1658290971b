"""DeepLabV3 as a method of the trainer: a module that turns a batch into named losses."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixskd.backbones import StagedBackbone
from mixskd.data.needs import DataNeeds
from mixskd.methods.hooks import Hooks
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.model import DeepLabV3


class SegmentationMethod(Hooks, nn.Module):
    """Trains DeepLabV3 as in MixSKD's Table 3; the attribute ``backbone`` is the whole network, which is deployed."""

    Config: ClassVar[type] = DeepLabConfig
    taught_by: ClassVar[str | None] = None

    def __init__(self, backbone: StagedBackbone, classes: int, config: DeepLabConfig) -> None:
        super().__init__()
        self.config, self.needs = config, DataNeeds()
        self.backbone = DeepLabV3(backbone, classes, config)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """None: dropout draws within ``forward``, from the generator that the step seeds."""
        return None

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None) -> dict[str, Tensor]:
        """``loss`` and its terms of ``images`` ``B x 3 x H x W`` and ``labels`` ``B x H x W`` (255 is ignored)."""
        terms = self.backbone.losses(images, labels)
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}
