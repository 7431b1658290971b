"""Label smoothing (Szegedy et al., CVPR 2016)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import BelowOne, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.losses import full_precision, log_likelihood

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
    about = About("A tenth of each label goes to the other classes.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        return {"loss": label_smoothing_loss(logits, labels, epsilon=c.epsilon, spread=c.spread), "output": logits}


def label_smoothing_loss(logits: Tensor, labels: Tensor, *, epsilon: float, spread: Spread) -> Tensor:
    """Cross-entropy of logits ``B x N`` with (1 - eps) y + eps u, u uniform over the other classes or over all."""
    log_p = F.log_softmax(full_precision(logits), dim=1)
    if spread == "others":  # eps / (N - 1) for each other class is eps N / (N - 1) spread over all classes
        epsilon *= logits.shape[1] / (logits.shape[1] - 1)
    return -(1 - epsilon) * log_likelihood(log_p, labels).mean() - epsilon * log_p.mean()
