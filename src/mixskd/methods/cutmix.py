"""CutMix (Yun et al., ICCV 2019)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from mixskd.config.types import BelowOne, Positive, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class CutMixConfig(Settings):
    """As the authors' code.

    Args:
        alpha: the parameter of Beta(alpha, alpha).
        probability: the probability that a batch is mixed; 0.5 on CIFAR, 1 on ImageNet.
        label_smoothing: the share of each mixed label that is spread over all classes; 0 as in the paper.
    """

    alpha: Positive = 1.0
    probability: Annotated[float, Meta(gt=0, le=1)] = 0.5
    label_smoothing: BelowOne = 0.0


class CutMix(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]), where x~ has a box of x[pi], and 1 - lam is its area."""

    Config = CutMixConfig
    config: CutMixConfig
    several_labels = True
    about = About("Paste a box of another image and mix the labels by its area.")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        mix = sample_mix(images, self.config.alpha, "cutmix", generator=generator)
        chosen = torch.rand((), generator=generator, device=images.device) < self.config.probability
        assert mix.box is not None
        return mix._replace(lam=torch.where(chosen, mix.lam, 1.0), box=mix.box * chosen)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        logits = self.backbone(mix.apply(images))
        return {"loss": self.ce(logits, labels, self.config.label_smoothing, mix), "output": logits}
