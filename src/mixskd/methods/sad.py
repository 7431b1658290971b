"""SAD: Self Attention Distillation (Hou et al., ICCV 2019), carried from lane detection to classification."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import spatial
from mixskd.config.types import NotNegative, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, total, weighted_sum


@dataclass(frozen=True)
class SADConfig(Settings):
    """As the authors' code.

    Args:
        gamma: the weight of the attention distances.
    """

    gamma: NotNegative = 0.1


class SAD(Method):
    """L = CE(f(x), y) + gamma sum_{m<K} mean (att(A_m) - stopgrad att(A_{m+1}))^2: the deeper stage teaches."""

    Config = SADConfig
    config: SADConfig
    about = About("Each stage's attention map follows that of the next stage.")

    def build(self) -> None:
        self.backbone.require_stages("sad")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        maps, logits = self.backbone.maps_and_logits(images)
        terms = sad_loss(logits, [spatial(f) for f in maps], labels, gamma=self.config.gamma, ce=self.ce)
        return {"output": logits, **terms}


def sad_loss(
    logits: Tensor, maps: Sequence[Tensor], labels: Tensor, *, gamma: float, ce: CrossEntropy = PLAIN
) -> dict[str, Tensor]:
    """``loss`` = ``cls`` + gamma ``attention``, from logits ``B x N`` and the maps of all stages.

    ``cls`` is the cross-entropy; ``attention`` sums the squared distances between the attention of adjacent stages.
    """
    distances = (
        F.mse_loss(spatial_attention(shallow, size), spatial_attention(deep.detach(), size))
        for shallow, deep in pairwise(maps)
        for size in [shallow.shape[-2:]]
    )
    return weighted_sum(cls=(1, ce(logits, labels)), attention=(gamma, total(distances, logits)))


def spatial_attention(feature_map: Tensor, size: torch.Size) -> Tensor:
    """The channels' sum of squares of a map ``B x C x H x W``, resized to ``size``, as a softmax over its positions."""
    energy = full_precision(feature_map).square().sum(1, keepdim=True)
    return F.interpolate(energy, size=size, mode="bilinear", align_corners=False).flatten(1).softmax(1)
