"""Virtual softmax (Chen et al., NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import exact, split
from mixskd.config.types import Settings
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import cross_entropy


@dataclass(frozen=True)
class VirtualSoftmaxConfig(Settings):
    """There is nothing to set."""


class VirtualSoftmax(Method):
    """L = CE over N + 1 classes: the extra logit is ||w_y|| ||e||, e what the last linear layer sees (the
    pooled features, if the head is no more than that layer), which has no bias.

    The bias is frozen at zero, so that the deployed weights have the backbone's usual form.
    """

    Config = VirtualSoftmaxConfig
    about = About("An extra class that is always a rival of the right one.")

    def build(self) -> None:
        self.backbone.require_features("virtual_softmax")
        _, linear = split(self.backbone.head)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias).requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        pooled = self.backbone.pooled(self.backbone.feature_maps(images)[-1])
        before, linear = split(self.backbone.head)
        with exact(pooled):
            features = before(pooled)
            logits = linear(features)
            virtual = linear.weight.norm(dim=1)[labels] * features.norm(dim=1)
        return {"loss": cross_entropy(torch.cat([logits, virtual[:, None]], dim=1), labels), "output": logits}
