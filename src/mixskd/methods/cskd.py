"""CS-KD: class-wise self-knowledge distillation (Yun et al., CVPR 2020), and with mixup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import cross_entropy, kl_divergence
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class CSKDConfig(Settings):
    """As the authors' code.

    Args:
        temperature: the temperature T.
        weight: the weight lambda of the divergence; 1 on CIFAR, 3 on fine-grained sets.
    """

    temperature: Positive = 4.0
    weight: NotNegative = 1.0


class CSKD(Method):
    """L = CE(f(x), y) + lambda KL_T(f(x) <- stopgrad f(x')), x' another image of x's class, in its own forward."""

    Config: ClassVar[type] = CSKDConfig
    config: CSKDConfig
    about = About("An image learns from the prediction for another image of its class.", compute=1.33, images=2)

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(partners=1)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        partners = take(extra, "partners")[:, 0]
        if draws is not None:
            images, partners = draws.apply(images), draws.apply(partners)
        logits = self.backbone(images)
        with torch.no_grad():  # in training mode: the partners move the running statistics too
            target = self.backbone(partners)
        classify = cross_entropy if draws is None else draws.cross_entropy
        cls = classify(logits, labels)
        class_wise = kl_divergence(logits, target, self.config.temperature)
        loss = cls + self.config.weight * class_wise
        return {"loss": loss, "output": logits, "cls": cls, "class_wise": class_wise}


@dataclass(frozen=True)
class CSKDMixupConfig(CSKDConfig):
    """Neither paper nor code of CS-KD has it: the combination is ours, see the fidelity page.

    Args:
        temperature: the temperature T.
        weight: the weight lambda of the divergence.
        alpha: the parameter of Beta(alpha, alpha).
    """

    alpha: Positive = 0.4


class CSKDMixup(CSKD):
    """L = CE(f(x~), y~) + lambda KL_T(f(x~) <- stopgrad f(x'~)): one mix for the images and for their partners."""

    Config = CSKDMixupConfig
    config: CSKDMixupConfig
    about = About("CS-KD on mixes: one mix for the images and for their partners.", compute=1.33, images=2)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        return super().forward(images, labels, draws or self.draw(images), **extra)
