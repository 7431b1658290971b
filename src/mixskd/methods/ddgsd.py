"""DDGSD: Data-Distortion Guided Self-Distillation (Xu & Liu, AAAI 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import cross_entropy, full_precision, kl_divergence


@dataclass(frozen=True)
class DDGSDConfig(Settings):
    """No code of the authors is known; see the fidelity page for where each value is from.

    Args:
        temperature: the temperature T of the divergences.
        lam: the weight of the divergences.
        mu: the weight of the squared distance of the batch-mean features (MMD with a linear kernel).
    """

    temperature: Positive = 3.0
    lam: NotNegative = 1.0
    mu: NotNegative = 5e-4


class DDGSD(Method):
    """L = CE(a) + CE(b) + lam (KL_T(a <- b) + KL_T(b <- a)) + mu ||mean e(a) - mean e(b)||^2 of two views a, b."""

    Config = DDGSDConfig
    config: DDGSDConfig
    about = About("Two augmented views of an image predict alike.", compute=2, images=2, maps=2)

    def build(self) -> None:
        self.backbone.require_features("ddgsd")

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(views=2)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c = self.config
        maps = self.backbone.feature_maps(torch.cat([images, take(extra, "views")[:, 0]]))[-1]
        pooled = self.backbone.pooled(maps)
        a, b = self.backbone.head(pooled).chunk(2)
        mean_a, mean_b = (x.mean(0) for x in full_precision(pooled).chunk(2))
        cls = cross_entropy(a, labels) + cross_entropy(b, labels)
        logit = kl_divergence(a, b, c.temperature) + kl_divergence(b, a, c.temperature)
        feature = (mean_a - mean_b).square().sum()
        loss = cls + c.lam * logit + c.mu * feature
        return {"loss": loss, "output": a, "cls": cls, "logit": logit, "feature": feature}
