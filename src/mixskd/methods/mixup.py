"""Mixup (Zhang et al., ICLR 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.config.types import BelowOne, Positive, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class MixupConfig(Settings):
    """As in the MixSKD paper's runs.

    Args:
        alpha: the parameter of Beta(alpha, alpha); 0.4 on CIFAR-100, 0.2 on ImageNet.
        label_smoothing: the share of each mixed label that is spread over all classes; 0 as in the paper.
    """

    alpha: Positive = 0.4
    label_smoothing: BelowOne = 0.0


class Mixup(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]) on the mixed images x~ alone."""

    Config = MixupConfig
    config: MixupConfig
    several_labels = True
    about = About("Train on mixes of two images, with mixed labels.")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        logits = self.backbone(mix.apply(images))
        return {"loss": self.ce(logits, labels, self.config.label_smoothing, mix), "output": logits}
