"""Tf-KD by regularisation: a virtual teacher (Yuan et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import cross_entropy, full_precision


@dataclass(frozen=True)
class TfKDRegConfig(Settings):
    """As the authors' code for a ResNet-18 on CIFAR-100.

    Args:
        alpha: the share of the virtual teacher.
        temperature: the temperature tau of the teacher only; the student's is 1.
        multiplier: the factor m; the divergence is a mean over batch and classes, so its weight is m / N.
        correct: the virtual teacher's probability of the right class.
    """

    alpha: Share = 0.1
    temperature: Positive = 20.0
    multiplier: Positive = 100.0
    correct: Annotated[float, Meta(gt=0, le=1)] = 0.99


class TfKDReg(Method):
    """L = (1 - a) CE(f(x), y) + a m / N KL(softmax(u / tau) || f(x)), u the virtual teacher's probabilities.

    u is ``correct`` for the right class and equal for the N - 1 others. It passes a softmax of its own, so that at
    tau = 20 the teacher is almost uniform, as in the authors' code.
    """

    Config = TfKDRegConfig
    config: TfKDRegConfig
    about = About("A teacher made by hand: high on the right class, uniform on the rest.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        log_p = F.log_softmax(full_precision(logits), dim=1)
        classes = logits.shape[1]
        virtual = torch.full_like(log_p, (1 - c.correct) / (classes - 1)).scatter(1, labels[:, None], c.correct)
        teacher = F.log_softmax(virtual / c.temperature, dim=1)
        distillation = F.kl_div(log_p, teacher, reduction="batchmean", log_target=True) / classes
        cls = cross_entropy(logits, labels)
        loss = (1 - c.alpha) * cls + c.alpha * c.multiplier * distillation
        return {"loss": loss, "output": logits, "cls": cls, "distillation": distillation}
