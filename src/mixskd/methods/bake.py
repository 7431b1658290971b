"""BAKE: Self-distillation with Batch Knowledge Ensembling (Ge et al., 2021)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import BelowOne, Count, NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, weighted_sum


@dataclass(frozen=True)
class BAKEConfig(Settings):
    """As the authors' code on CIFAR-100.

    Args:
        partners: M, the images of the same class beside each anchor; 3 on CIFAR-100 and CUB, 1 on Dogs, MIT67 and
            ImageNet. The batch size counts the anchors, so the authors' 128 images per step are 32 anchors.
        omega: the weight of the neighbours' predictions in each round of propagation; 0.5, but 0.9 on Dogs and MIT67.
        temperature: the temperature T.
        weight: the weight lambda of the divergence.
    """

    partners: Count = 3
    omega: BelowOne = 0.5
    temperature: Positive = 4.0
    weight: NotNegative = 1.0


class BAKE(Method):
    """L = CE(z, y) + lambda T^2 KL(Q || softmax(z / T)), Q = (1 - w) (I - w A)^-1 P, over anchors and partners alike.

    P = softmax(z / T); A is the row-wise softmax of the pooled features' cosines, without the diagonal.
    """

    Config = BAKEConfig
    config: BAKEConfig
    about = About("Images of a class average their predictions by how alike they are.", compute=4, images=4, maps=4)

    def build(self) -> None:
        self.backbone.require_features("bake")

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(partners=self.config.partners, distinct_partners=True)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, partners = self.config, take(extra, "partners")
        pooled = self.backbone.pooled(self.backbone.feature_maps(torch.cat([images, partners.flatten(0, 1)]))[-1])
        logits = self.backbone.head(pooled)
        labels = torch.cat([labels, labels.repeat_interleave(partners.shape[1], dim=0)])
        with torch.autocast(images.device.type, enabled=False):
            terms = bake_loss(
                logits, pooled, labels, omega=c.omega, temperature=c.temperature, weight=c.weight, ce=self.ce
            )
        return {"output": logits[: len(images)], **terms}


def bake_loss(
    logits: Tensor, features: Tensor, labels: Tensor,
    *, omega: float, temperature: float, weight: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + weight ``ensemble``, from logits ``B x N`` and features ``B x D`` of anchors and partners.

    ``cls`` is the cross-entropy; ``ensemble`` is T^2 KL(Q || softmax(z / T)), Q the predictions after propagation.
    Call it without autocast, which would compute the propagation in half precision.
    """
    z = full_precision(logits) / temperature
    with torch.no_grad():
        target = propagate(z.softmax(1), full_precision(features), omega)
    ensemble = F.kl_div(F.log_softmax(z, dim=1), target, reduction="batchmean") * temperature**2
    return weighted_sum(cls=(1, ce(logits, labels)), ensemble=(weight, ensemble))


def propagate(probabilities: Tensor, features: Tensor, omega: float) -> Tensor:
    """Q = (1 - omega) (I - omega A)^-1 P of predictions P (``B x N``) by the similarity of features (``B x D``)."""
    e = F.normalize(features, dim=1)
    identity = torch.eye(len(e), dtype=e.dtype, device=e.device)
    power = omega * (e @ e.t() - 1e9 * identity).softmax(1)
    # (I - M)^-1 = (I + M) (I + M^2) (I + M^4) ..., for M = omega A. The rows of A sum to 1, so the error of n factors
    # is at most omega^(2^n). A CUDA graph cannot record a solver, which allocates memory and checks its success.
    ensemble = (1 - omega) * probabilities
    for factor in range(factors(omega)):
        power = power @ power if factor else power
        ensemble = ensemble + power @ ensemble
    return ensemble


def factors(omega: float, error: float = 1e-12) -> int:
    """The number of factors (I + M^(2^i)) for an error of at most ``error`` in a probability."""
    return math.ceil(math.log2(max(math.log(error) / math.log(omega), 1))) if omega > 0 else 0
