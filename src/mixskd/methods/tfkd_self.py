"""Tf-KD by self-training: a frozen, pre-trained copy of the same network teaches (Yuan et al., CVPR 2020)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import kl_divergence, weighted_sum
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
        c, logits = self.config, self.backbone(images)
        terms = tfkd_self_loss(
            logits, self.teach(images), labels, alpha=c.alpha, temperature=c.temperature, multiplier=c.multiplier,
            ce=self.ce,
        )  # fmt: skip
        return {"output": logits, **terms}


def tfkd_self_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor,
    *, alpha: float, temperature: float, multiplier: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = (1 - alpha) ``cls`` + alpha m / N ``distillation``, from two logits ``B x N``.

    ``cls`` is the cross-entropy, ``distillation`` the divergence from the teacher.
    """
    distillation = kl_divergence(student=logits, teacher=teacher_logits, temperature=temperature)
    weight = alpha * multiplier / logits.shape[1]
    return weighted_sum(cls=(1 - alpha, ce(logits, labels)), distillation=(weight, distillation))
