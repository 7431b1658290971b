"""FRSKD on mixed images (Ji et al., CVPR 2021)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixskd.config.types import Positive
from mixskd.methods.frskd import FRSKD, FRSKDConfig
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class FRSKDMixupConfig(FRSKDConfig):
    """As the authors' code; the other settings are those of FRSKD.

    Args:
        mix_alpha: the parameter of Beta(mix_alpha, mix_alpha).
    """

    mix_alpha: Positive = 0.2


class FRSKDMixup(FRSKD):
    """FRSKD's whole loss on the mixed batch, with mixed labels."""

    Config = FRSKDMixupConfig
    config: FRSKDMixupConfig
    about = replace(FRSKD.about, summary="FRSKD on mixes, with mixed labels.")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.mix_alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix = draws or self.draw(images)
        return super().forward(mix.apply(images), mix.labels(labels, self.backbone.num_classes))
