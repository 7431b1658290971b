"""CS-KD: class-wise self-knowledge distillation (Yun et al., CVPR 2020)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import kl_divergence, weighted_sum


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

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        with torch.no_grad():  # in training mode: the partners change the running statistics too
            partner_logits = self.backbone(take(extra, "partners")[:, 0])
        terms = cskd_loss(logits, partner_logits, labels, temperature=c.temperature, weight=c.weight, ce=self.ce)
        return {"output": logits, **terms}


def cskd_loss(
    logits: Tensor, partner_logits: Tensor, labels: Tensor,
    *, temperature: float, weight: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + weight ``class_wise``, from the logits ``B x N`` of the images and of their partners.

    ``cls`` is the cross-entropy; ``class_wise`` the divergence whose teacher is the partner's prediction.
    """
    class_wise = kl_divergence(student=logits, teacher=partner_logits, temperature=temperature)
    return weighted_sum(cls=(1, ce(logits, labels)), class_wise=(weight, class_wise))
