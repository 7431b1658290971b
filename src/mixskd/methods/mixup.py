"""Mixup and CutMix as plain augmentations of images and labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.methods.base import Method, check_choice, check_positive
from mixskd.mixing import MIXES, Mix, sample_mix


@dataclass(frozen=True)
class MixupConfig:
    """Zhang et al., ICLR 2018.

    Args:
        alpha: of Beta(alpha, alpha); 0.4 on CIFAR-100 as the MixSKD paper's runs, 0.2 on ImageNet.
        mix: ``mixup``, or ``cutmix`` (Yun et al., ICCV 2019, who take alpha 1).
    """

    alpha: float = 0.4
    mix: str = "mixup"

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha)
        check_choice("mix", self.mix, MIXES)


class Mixup(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]) on the mixed images x~ alone."""

    Config = MixupConfig
    config: MixupConfig

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, self.config.mix, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        logits = self.backbone(mix(images))
        return {"loss": mix.cross_entropy(logits, labels), "output": logits}
