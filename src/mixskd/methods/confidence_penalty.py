"""Confidence penalty (Pereyra et al., ICLR workshop 2017)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import NotNegative, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, weighted_sum


@dataclass(frozen=True)
class ConfidencePenaltyConfig(Settings):
    """The paper sweeps beta.

    Args:
        beta: the weight of the entropy, which is summed over classes.
    """

    beta: NotNegative = 0.1


class ConfidencePenalty(Method):
    """L = CE(f(x), y) - beta H(f(x))."""

    Config = ConfidencePenaltyConfig
    config: ConfidencePenaltyConfig
    about = About("Predictions of low entropy are penalised.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.backbone(images)
        return {"output": logits, **confidence_penalty_loss(logits, labels, beta=self.config.beta, ce=self.ce)}


def confidence_penalty_loss(
    logits: Tensor, labels: Tensor, *, beta: float, ce: CrossEntropy = PLAIN
) -> dict[str, Tensor]:
    """``loss`` = ``cls`` - beta ``entropy``: cross-entropy and entropy -sum_n p_n log p_n of logits ``B x N``."""
    log_p = F.log_softmax(full_precision(logits), dim=1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    return weighted_sum(cls=(1, ce(logits, labels)), entropy=(-beta, entropy))
