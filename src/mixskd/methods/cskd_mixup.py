"""CS-KD on mixed images. The MixSKD paper reports the combination; its form is our choice."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.config.types import Positive
from mixskd.data.needs import take
from mixskd.methods.cards import About
from mixskd.methods.cskd import CSKD, CSKDConfig
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class CSKDMixupConfig(CSKDConfig):
    """The combination is ours, see the fidelity page; the other settings are those of CS-KD.

    Args:
        alpha: the parameter of Beta(alpha, alpha).
    """

    alpha: Positive = 0.4


class CSKDMixup(CSKD):
    """L = CE(f(x~), y~) + lambda KL_T(f(x~) <- stopgrad f(x'~)): one mix for the images and for their partners."""

    Config = CSKDMixupConfig
    config: CSKDMixupConfig
    about = About("CS-KD on mixes: one mix for the images and for their partners.", compute=1.33, images=2)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix, partners = draws or self.draw(images), take(extra, "partners")
        mixed_labels = mix.labels(labels, self.backbone.num_classes)
        return super().forward(mix.apply(images), mixed_labels, partners=mix.apply(partners[:, 0])[:, None])
