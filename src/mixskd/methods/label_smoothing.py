"""Label smoothing (Szegedy et al., CVPR 2016)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mixskd.config.types import BelowOne, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy

Spread = Literal["others", "all"]


@dataclass(frozen=True)
class LabelSmoothingConfig(Settings):
    """Two forms are in use.

    Args:
        epsilon: the probability that is taken from the right class.
        spread: where it goes: to the ``others`` (eps / (N - 1) each, as in Tf-KD's code), or to ``all`` (eps / N, as in
            the paper).
    """

    epsilon: BelowOne = 0.1
    spread: Spread = "others"


class LabelSmoothing(Method):
    """L = CE(f(x), (1 - eps) y + eps u), u uniform over the other classes or over all."""

    Config = LabelSmoothingConfig
    config: LabelSmoothingConfig
    several_labels = True
    about = About("A tenth of each label goes to the other classes.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        loss = label_smoothing_loss(logits, labels, epsilon=c.epsilon, spread=c.spread, ce=self.ce)
        return {"loss": loss, "output": logits}


def label_smoothing_loss(
    logits: Tensor, labels: Tensor, *, epsilon: float, spread: Spread, ce: CrossEntropy = PLAIN
) -> Tensor:
    """Cross-entropy of logits ``B x N`` with (1 - eps) y + eps u, u uniform over the other classes or over all."""
    if spread == "others":  # eps / (N - 1) for each other class is eps N / (N - 1) spread over all classes
        epsilon *= ce.outcomes(logits) / (ce.outcomes(logits) - 1)
    return ce(logits, labels, epsilon)
