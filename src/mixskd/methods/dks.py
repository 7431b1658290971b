"""DKS: Deeply-supervised Knowledge Synergy (Sun et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.methods.branched import BRANCHED, BranchedMethod
from mixskd.methods.parts.losses import cross_entropy, kl_divergence, total


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
        logits = self.logits(self.pooled(images))
        cls = total(cross_entropy(z, labels) for z in logits)
        pairs = ((a, b) for a in logits for b in logits if a is not b)
        synergy = total((kl_divergence(a, b, self.config.temperature) for a, b in pairs), images)
        return {"loss": cls + self.config.weight * synergy, "output": logits[-1], "cls": cls, "synergy": synergy}
