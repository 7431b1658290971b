"""RegMixup: mixup as a regulariser (Pinto et al., NeurIPS 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.config.types import BelowOne, NotNegative, Positive, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import weighted_sum
from mixskd.methods.parts.mixing import Mix, MixName, sample_mix


@dataclass(frozen=True)
class RegMixupConfig(Settings):
    """As the authors' commands for CIFAR-100.

    Args:
        alpha: the parameter of Beta(alpha, alpha); 10 in the authors' command for CIFAR-100, 20 in the one for
            CIFAR-10.
        weight: the weight of the mixes' cross-entropy; the authors' code has no such factor.
        mix: ``mixup`` (the paper), or ``cutmix``, which is ours.
        label_smoothing: the share of each label, mixed labels included, that is spread over all classes; 0 as in the
            paper.
    """

    alpha: Positive = 10.0
    weight: NotNegative = 1.0
    mix: MixName = "mixup"
    label_smoothing: BelowOne = 0.0


class RegMixup(Method):
    """L = CE(f(x), y) + weight CE(f(x~), y~): the originals and their mixes in one forward."""

    Config = RegMixupConfig
    config: RegMixupConfig
    several_labels = True
    about = About("Cross-entropy on the images and on their mixes.", compute=2, images=2, maps=2)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        return sample_mix(images, self.config.alpha, self.config.mix, generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        c, mix = self.config, draws or self.draw(images)
        originals, mixed = self.backbone(torch.cat([images, mix.apply(images)])).chunk(2)
        terms = regmixup_loss(originals, mixed, labels, mix, weight=c.weight, smoothing=c.label_smoothing, ce=self.ce)
        return {"output": originals, **terms}


def regmixup_loss(
    originals: Tensor, mixed: Tensor, labels: Tensor, mix: Mix,
    *, weight: float, smoothing: float = 0.0, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + weight ``cls_mix``: the cross-entropies of the logits ``B x N`` of images and of mixes."""
    cls, cls_mix = ce(originals, labels, smoothing), ce(mixed, labels, smoothing, mix)
    return weighted_sum(cls=(1, cls), cls_mix=(weight, cls_mix))
