"""DDGSD: Data-Distortion Guided Self-Distillation (Xu & Liu, AAAI 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, kl_divergence, weighted_sum


@dataclass(frozen=True)
class DDGSDConfig(Settings):
    """No code of the authors is known; see the fidelity page for where each value is from.

    Args:
        temperature: the temperature T of the divergences.
        lam: the weight of the divergences.
        mu: the weight of the squared distance of the batch-mean features (MMD with a linear kernel).
    """

    temperature: Positive = 3.0
    lam: NotNegative = 1.0
    mu: NotNegative = 5e-4


class DDGSD(Method):
    """L = CE(a) + CE(b) + lam (KL_T(a <- b) + KL_T(b <- a)) + mu ||mean e(a) - mean e(b)||^2 of two views a, b."""

    Config = DDGSDConfig
    config: DDGSDConfig
    about = About("Two augmented views of an image predict alike.", compute=2, images=2, maps=2)

    def build(self) -> None:
        self.backbone.require_features("ddgsd")

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(views=2)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c = self.config
        pooled = self.backbone.pooled(self.backbone.feature_maps(torch.cat([images, take(extra, "views")[:, 0]]))[-1])
        logits = self.backbone.head(pooled).chunk(2)
        terms = ddgsd_loss(logits, pooled.chunk(2), labels, temperature=c.temperature, lam=c.lam, mu=c.mu, ce=self.ce)
        return {"output": logits[0], **terms}


def ddgsd_loss(
    logits: Sequence[Tensor], features: Sequence[Tensor], labels: Tensor,
    *, temperature: float, lam: float, mu: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + lam ``logit`` + mu ``feature``, from logits ``B x N`` and features ``B x C`` of two views.

    ``cls`` is the cross-entropy of both; ``logit`` the divergence in both directions; ``feature`` the squared distance
    of the features' batch means.
    """
    (a, b), (mean_a, mean_b) = logits, (full_precision(x).mean(0) for x in features)
    logit = kl_divergence(student=a, teacher=b, temperature=temperature)
    logit = logit + kl_divergence(student=b, teacher=a, temperature=temperature)
    cls = ce(a, labels) + ce(b, labels)
    return weighted_sum(cls=(1, cls), logit=(lam, logit), feature=(mu, (mean_a - mean_b).square().sum()))
