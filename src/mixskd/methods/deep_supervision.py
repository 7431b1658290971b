"""Deep supervision: MixSKD's branches, trained with the labels alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mixskd.config.types import Settings
from mixskd.methods.branched import BRANCHED, BranchedMethod
from mixskd.methods.parts.losses import cross_entropy, total


@dataclass(frozen=True)
class DeepSupervisionConfig(Settings):
    """Every head has weight 1."""


class DeepSupervision(BranchedMethod):
    """L = CE(f(x), y) + sum_k CE(b_k(x), y) (MixSKD Eq. 3)."""

    Config = DeepSupervisionConfig
    about = replace(BRANCHED, summary="A classifier on every stage, each trained by the labels.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        *branches, logits = self.logits(self.pooled(images))
        backbone = cross_entropy(logits, labels)
        auxiliary = total((cross_entropy(z, labels) for z in branches), images)
        return {"loss": backbone + auxiliary, "output": logits, "backbone": backbone, "auxiliary": auxiliary}
