"""CutMix (Yun et al., ICCV 2019)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from mixskd.config.types import Positive
from mixskd.methods.cards import About
from mixskd.methods.mixup import Mixup, MixupConfig
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class CutMixConfig(MixupConfig):
    """As the authors' code; ``label_smoothing`` is that of mixup.

    Args:
        alpha: the parameter of Beta(alpha, alpha).
        probability: the probability that a batch is mixed; 0.5 on CIFAR, 1 on ImageNet.
    """

    alpha: Positive = 1.0
    probability: Annotated[float, Meta(gt=0, le=1)] = 0.5


class CutMix(Mixup):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]), where x~ has a box of x[pi], and 1 - lam is its area."""

    Config = CutMixConfig
    config: CutMixConfig
    about = About("Paste a box of another image and mix the labels by its area.")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        mix = sample_mix(images, self.config.alpha, "cutmix", generator=generator)
        chosen = torch.rand((), generator=generator, device=images.device) < self.config.probability
        assert mix.box is not None
        return mix._replace(lam=torch.where(chosen, mix.lam, 1.0), box=mix.box * chosen)
