"""Label smoothing (Szegedy et al., CVPR 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from mixskd.config.types import BelowOne, Settings
from mixskd.methods.base import About, Method
from mixskd.methods.parts.losses import full_precision


@dataclass(frozen=True)
class LabelSmoothingConfig(Settings):
    """Two forms are in use.

    Args:
        epsilon: the probability that is taken from the right class.
        spread: where it goes: to the ``others`` (eps / (N - 1) each, as in Tf-KD's code), or to ``all`` (eps / N, as in
            the paper).
    """

    epsilon: BelowOne = 0.1
    spread: Literal["others", "all"] = "others"


class LabelSmoothing(Method):
    """L = CE(f(x), (1 - eps) y + eps u), u uniform over the other classes or over all."""

    Config = LabelSmoothingConfig
    config: LabelSmoothingConfig
    about = About("A tenth of each label goes to the other classes.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.backbone(images)
        log_p = F.log_softmax(full_precision(logits), dim=1)
        # eps / (N - 1) on the others is the smoothing over all by eps N / (N - 1)
        classes = logits.shape[1]
        epsilon = self.config.epsilon * (classes / (classes - 1) if self.config.spread == "others" else 1)
        loss = (1 - epsilon) * F.nll_loss(log_p, labels) - epsilon * log_p.mean()
        return {"loss": loss, "output": logits}
