"""Deep supervision: MixSKD's branches, trained with the labels alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mixskd.config.types import Settings
from mixskd.methods.branched import BRANCHED, BranchedMethod
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import total, weighted_sum


@dataclass(frozen=True)
class DeepSupervisionConfig(Settings):
    """Every head has weight 1."""


class DeepSupervision(BranchedMethod):
    """L = CE(f(x), y) + sum_k CE(b_k(x), y) (MixSKD Eq. 3)."""

    Config = DeepSupervisionConfig
    about = replace(BRANCHED, summary="A classifier on every stage, each trained by the labels.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.outputs(images).logits
        return {"output": logits[-1], **deep_supervision_loss(logits, labels, ce=self.ce)}


def deep_supervision_loss(logits: Sequence[Tensor], labels: Tensor, ce: CrossEntropy = PLAIN) -> dict[str, Tensor]:
    """``loss`` = ``backbone`` + ``auxiliary``: cross-entropy of the last of K logits ``B x N``, and of the others."""
    *branches, last = logits
    auxiliary = total((ce(z, labels) for z in branches), last)
    return weighted_sum(backbone=(1, ce(last, labels)), auxiliary=(1, auxiliary))
