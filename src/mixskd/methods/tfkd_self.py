"""Tf-KD by self-training: a frozen, pre-trained copy of the same network teaches (Yuan et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.config.types import Positive, Settings, Share
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.losses import cross_entropy, kl_divergence, weighted_sum


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


class TfKDSelf(Method):
    """L = (1 - a) CE(f(x), y) + a m / N KL_T(f(x) <- teacher(x)); the teacher is frozen, in evaluation mode."""

    Config = TfKDSelfConfig
    about = About(
        "A trained copy of the network teaches a new one.",
        compute=1.33,
        images=2,
        keeps="a trained copy of the network",
    )
    taught_by = "baseline"
    config: TfKDSelfConfig

    def build(self) -> None:
        self.teacher: nn.Module | None = None

    def prepare(self, num_images: int, load: Callable[[str], nn.Module]) -> None:
        if not self.config.teacher:
            raise UserError("tfkd_self needs a trained teacher: name a baseline's run folder with --method.teacher")
        self.set_teacher(load(self.config.teacher))

    def set_teacher(self, teacher: nn.Module) -> None:
        """Distil from ``teacher``, a classifier of the same classes."""
        if getattr(teacher, "num_classes", self.backbone.num_classes) != self.backbone.num_classes:
            raise UserError(f"the teacher {self.config.teacher} has another number of classes than the data")
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TfKDSelf:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        if self.teacher is None:
            raise UserError("tfkd_self has no teacher yet: call set_teacher(classifier) first")
        c, logits = self.config, self.backbone(images)
        with torch.no_grad():
            target = self.teacher(images)
        terms = tfkd_self_loss(
            logits, target, labels, alpha=c.alpha, temperature=c.temperature, multiplier=c.multiplier
        )
        return {"output": logits, **terms}


def tfkd_self_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, temperature: float, multiplier: float
) -> dict[str, Tensor]:
    """``loss`` = (1 - alpha) ``cls`` + alpha m / N ``distillation``, from two logits ``B x N``.

    ``cls`` is the cross-entropy, ``distillation`` the divergence from the teacher.
    """
    distillation = kl_divergence(student=logits, teacher=teacher_logits, temperature=temperature)
    weight = alpha * multiplier / logits.shape[1]
    return weighted_sum(cls=(1 - alpha, cross_entropy(logits, labels)), distillation=(weight, distillation))
