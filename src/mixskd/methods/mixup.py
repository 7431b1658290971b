"""Mixup (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.methods.base import About, Method, check_positive, check_smoothing
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class MixupConfig:
    """As in the MixSKD paper's runs.

    Args:
        alpha: of Beta(alpha, alpha); 0.4 on CIFAR-100, 0.2 on ImageNet.
        label_smoothing: the share of each mixed label that is spread over all classes; 0 is the paper.
    """

    alpha: float = 0.4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha)
        check_smoothing(self.label_smoothing)


class Mixup(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]) on the mixed images x~ alone."""

    Config = MixupConfig
    config: MixupConfig
    about = About("Train on mixes of two images, with mixed labels.", 1, 1, "nothing")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        logits = self.backbone(mix(images))
        return {"loss": mix.cross_entropy(logits, labels, self.config.label_smoothing), "output": logits}
