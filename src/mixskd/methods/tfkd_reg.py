"""Tf-KD by regularisation: a virtual teacher (Yuan et al., CVPR 2020)."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, weighted_sum


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

    u is ``correct`` for the right class and equal for the N - 1 others. It passes its own softmax, so that at
    tau = 20 the teacher is almost uniform, as in the authors' code.
    """

    Config = TfKDRegConfig
    config: TfKDRegConfig
    soft_labels = False
    about = About("A teacher made by hand: high on the right class, uniform on the rest.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        terms = tfkd_reg_loss(
            logits, labels, alpha=c.alpha, temperature=c.temperature, multiplier=c.multiplier, correct=c.correct,
            ce=self.ce,
        )  # fmt: skip
        return {"output": logits, **terms}


def tfkd_reg_loss(
    logits: Tensor, labels: Tensor,
    *, alpha: float, temperature: float, multiplier: float, correct: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = (1 - alpha) ``cls`` + alpha m ``distillation``, from logits ``B x N`` and class indices ``B``.

    ``cls`` is the cross-entropy; ``distillation`` is 1 / N KL(softmax(u / tau) || f(x)), u the virtual teacher's
    probabilities.
    """
    log_p, classes = F.log_softmax(full_precision(logits), dim=1), logits.shape[1]
    virtual = torch.full_like(log_p, (1 - correct) / (classes - 1)).scatter(1, labels[:, None], correct)
    teacher = F.log_softmax(virtual / temperature, dim=1)
    distillation = F.kl_div(log_p, teacher, reduction="batchmean", log_target=True) / classes
    cls = ce(logits, labels)
    return weighted_sum(cls=(1 - alpha, cls), distillation=(alpha * multiplier, distillation))
