"""Focal loss (Lin et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import NotNegative, Settings
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import full_precision


@dataclass(frozen=True)
class FocalConfig(Settings):
    """As the paper, without class weights.

    Args:
        gamma: how much images that are classified well count less.
    """

    gamma: NotNegative = 2.0


class Focal(Method):
    """L = -mean (1 - p_y)^gamma log p_y."""

    Config = FocalConfig
    config: FocalConfig
    about = About("Images that are right already weigh less.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.backbone(images)
        log_p = F.log_softmax(full_precision(logits), dim=1).gather(1, labels[:, None])[:, 0]
        # Above 0, for the slope of a root at 0 is infinite.
        missing = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
        return {"loss": -(missing**self.config.gamma * log_p).mean(), "output": logits}
