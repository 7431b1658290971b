"""Virtual softmax (Chen et al., NeurIPS 2018)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.heads import as_weights, exact, split_head
from mixskd.config.types import Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, log_likelihood


@dataclass(frozen=True)
class VirtualSoftmaxConfig(Settings):
    """Virtual softmax has no hyper-parameter."""


class VirtualSoftmax(Method):
    """L = CE over N + 1 classes. The extra logit is ||w_y|| ||e||, e the input of the last linear layer.

    The layer's bias is frozen at zero, so that the deployed weights have the backbone's usual form.
    """

    Config = VirtualSoftmaxConfig
    soft_labels = False
    about = About("An extra class that is always a rival of the right one.")

    def build(self) -> None:
        self.backbone.require_features("virtual_softmax")
        _, linear = split_head(self.backbone.head, "virtual_softmax")
        if linear.bias is not None:
            nn.init.zeros_(linear.bias).requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        pooled = self.backbone.pooled(self.backbone.feature_maps(images)[-1])
        before, linear = split_head(self.backbone.head, "virtual_softmax")
        with exact(pooled):
            features = before(as_weights(pooled, self.backbone.head))
            logits = linear(features)
            loss = virtual_softmax_loss(logits, features, linear.weight, labels, self.ce)
        return {"loss": loss, "output": logits}


def virtual_softmax_loss(
    logits: Tensor, features: Tensor, weight: Tensor, labels: Tensor, ce: CrossEntropy = PLAIN
) -> Tensor:
    """Cross-entropy with the extra logit ||w_y|| ||e||, from logits ``B x N``, e ``B x D`` and weights ``N x D``."""
    virtual = full_precision(weight).norm(dim=1)[labels] * full_precision(features).norm(dim=1)
    log_p = torch.cat([ce.adjusted(logits), virtual[:, None]], dim=1).log_softmax(1)
    return -(ce.weight_of(labels) * log_likelihood(log_p, labels)).mean()
