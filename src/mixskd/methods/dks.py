"""DKS: Deeply-supervised Knowledge Synergy (Sun et al., CVPR 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.methods.branched import BRANCHED, BranchedMethod
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import kl_divergence, total, weighted_sum


@dataclass(frozen=True)
class DKSConfig(Settings):
    """As the authors' code; the branches are MixSKD's, for the paper gives none for these backbones.

    Args:
        temperature: the temperature T; 1.
        weight: the weight of every ordered pair; 1.
    """

    temperature: Positive = 1.0
    weight: NotNegative = 1.0


class DKS(BranchedMethod):
    """L = sum_m CE(z_m, y) + w sum over ordered pairs m != n of KL_T(z_m <- stopgrad z_n), over all K heads."""

    Config = DKSConfig
    config: DKSConfig
    about = replace(BRANCHED, summary="All classifiers of the stages teach each other.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.outputs(images).logits
        terms = dks_loss(logits, labels, temperature=c.temperature, weight=c.weight, ce=self.ce)
        return {"output": logits[-1], **terms}


def dks_loss(
    logits: Sequence[Tensor], labels: Tensor, *, temperature: float, weight: float, ce: CrossEntropy = PLAIN
) -> dict[str, Tensor]:
    """``loss`` = ``cls`` + weight ``synergy``, from K logits ``B x N``.

    ``cls`` sums the cross-entropy of all heads, ``synergy`` the divergences of all ordered pairs of heads.
    """
    divergences = (kl_divergence(student=a, teacher=b, temperature=temperature) for a, b in permutations(logits, 2))
    synergy = total(divergences, logits[-1])
    return weighted_sum(cls=(1, total(ce(z, labels) for z in logits)), synergy=(weight, synergy))
