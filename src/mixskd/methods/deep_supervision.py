"""Deep supervision: MixSKD's branches, trained with the labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.branches import AuxiliaryBranches
from mixskd.losses import cross_entropy
from mixskd.methods.base import Method


@dataclass(frozen=True)
class DeepSupervisionConfig:
    """Every head has weight 1."""


class DeepSupervision(Method):
    """L = CE(f(x), y) + sum_k CE(b_k(x), y) (MixSKD Eq. 3)."""

    Config = DeepSupervisionConfig

    def build(self) -> None:
        self.branches = AuxiliaryBranches(self.backbone)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        return self.branches.logits(self.backbone, images)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        maps = self.branches(self.backbone.feature_maps(images))
        heads = [*self.branches.heads, self.backbone.head]
        logits = [head(self.backbone.pooled(m)) for head, m in zip(heads, maps, strict=True)]
        backbone = cross_entropy(logits[-1], labels)
        auxiliary = sum((cross_entropy(z, labels) for z in logits[:-1]), start=backbone.new_zeros(()))
        return {"loss": backbone + auxiliary, "output": logits[-1], "backbone": backbone, "auxiliary": auxiliary}
