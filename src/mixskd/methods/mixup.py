"""Mixup (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.methods.base import Method, check_positive
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class MixupConfig:
    """As in the MixSKD paper's runs.

    Args:
        alpha: of Beta(alpha, alpha); 0.4 on CIFAR-100, 0.2 on ImageNet.
    """

    alpha: float = 0.4

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha)


class Mixup(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]) on the mixed images x~ alone."""

    Config = MixupConfig
    config: MixupConfig

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        logits = self.backbone(mix(images))
        return {"loss": mix.cross_entropy(logits, labels), "output": logits}
