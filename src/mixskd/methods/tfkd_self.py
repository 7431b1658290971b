"""Tf-KD by self-training: a frozen, pre-trained copy of the same network teaches (Yuan et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.base import About
from mixskd.methods.parts.losses import cross_entropy, kl_divergence
from mixskd.methods.taught import TaughtMethod


@dataclass(frozen=True)
class TfKDSelfConfig(Settings):
    """As the authors' code for a ResNet-18 on CIFAR-100.

    Args:
        teacher: the folder of a finished run (or its model.safetensors) of the same backbone, trained as a baseline.
        alpha: the share of the teacher.
        temperature: the temperature T.
        multiplier: the factor m; the divergence is a mean over batch and classes, so its weight is m / N.
    """

    teacher: str = ""
    alpha: Share = 0.95
    temperature: Positive = 6.0
    multiplier: Positive = 50.0


class TfKDSelf(TaughtMethod):
    """L = (1 - a) CE(f(x), y) + a m / N KL_T(f(x) <- teacher(x)); the teacher is frozen, in evaluation mode."""

    Config = TfKDSelfConfig
    about = About(
        "A trained copy of the network teaches a new one.",
        compute=1.33,
        images=2,
        keeps="a trained copy of the network",
    )
    name = "tfkd_self"
    config: TfKDSelfConfig

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits, target = self.config, self.backbone(images), self.teach(images)
        cls = cross_entropy(logits, labels)
        distillation = kl_divergence(logits, target, c.temperature)
        loss = (1 - c.alpha) * cls + c.alpha * c.multiplier / logits.shape[1] * distillation
        return {"loss": loss, "output": logits, "cls": cls, "distillation": distillation}
