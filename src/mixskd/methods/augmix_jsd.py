"""AugMix with its consistency loss (Hendrycks et al., ICLR 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import NotNegative, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, total, weighted_sum


@dataclass(frozen=True)
class AugMixJSDConfig(Settings):
    """As the authors' code; without the loss AugMix is the data policy ``augmix``.

    Args:
        weight: the weight lambda of the Jensen-Shannon divergence.
    """

    weight: NotNegative = 12.0


class AugMixJSD(Method):
    """L = CE(f(x), y) + lambda JS(f(x), f(a_1), f(a_2)) of an image and two AugMix views of it."""

    Config = AugMixJSDConfig
    config: AugMixJSDConfig
    about = About("An image and two AugMix views of it predict alike.", compute=3, images=3, maps=3)

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(views=3, view_policy="augmix")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        views = take(extra, "views").unbind(1)
        logits = self.backbone(torch.cat([images, *views])).chunk(1 + len(views))
        return {"output": logits[0], **augmix_jsd_loss(logits, labels, weight=self.config.weight, ce=self.ce)}


def augmix_jsd_loss(
    logits: Sequence[Tensor], labels: Tensor, *, weight: float, ce: CrossEntropy = PLAIN
) -> dict[str, Tensor]:
    """``loss`` = ``cls`` + weight ``jsd``, from the logits ``B x N`` of the images and of each view.

    ``cls`` is the cross-entropy of the images; ``jsd`` the Jensen-Shannon divergence of all predictions.
    """
    log_p = [F.log_softmax(full_precision(z), dim=1) for z in logits]
    mixture = torch.stack(log_p).logsumexp(0) - math.log(len(log_p))
    jsd = total(F.kl_div(mixture, p, reduction="batchmean", log_target=True) for p in log_p) / len(log_p)
    return weighted_sum(cls=(1, ce(logits[0], labels)), jsd=(weight, jsd))
