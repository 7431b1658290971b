"""Focal loss (Lin et al., ICCV 2017)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import NotNegative, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import log_likelihood


@dataclass(frozen=True)
class FocalConfig(Settings):
    """As the paper; its class weights are ``optim.class_weights``.

    Args:
        gamma: the exponent that lowers the weight of images that are classified well.
    """

    gamma: NotNegative = 2.0


class Focal(Method):
    """L = -mean (1 - p_y)^gamma log p_y."""

    Config = FocalConfig
    config: FocalConfig
    soft_labels = False
    about = About("Images that are right already weigh less.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.backbone(images)
        return {"loss": focal_loss(logits, labels, gamma=self.config.gamma, ce=self.ce), "output": logits}


def focal_loss(logits: Tensor, labels: Tensor, *, gamma: float, ce: CrossEntropy = PLAIN) -> Tensor:
    """-mean (1 - p_y)^gamma log p_y, from logits ``B x N`` and class indices ``B``."""
    log_p = log_likelihood(F.log_softmax(ce.adjusted(logits), dim=1), labels)
    # Kept above 0: the slope of a root is infinite at 0.
    missing = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
    return -(ce.weight_of(labels) * missing**gamma * log_p).mean()
