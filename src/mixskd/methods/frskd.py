"""FRSKD: Feature Refinement via Self-Knowledge Distillation (Ji et al., CVPR 2021), and with mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import spatial
from mixskd.config.types import Count, NotNegative, Positive, Settings
from mixskd.methods.base import About, Method
from mixskd.methods.parts.bifpn import BiFPN
from mixskd.methods.parts.losses import cross_entropy, full_precision, kl_divergence, total
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class FRSKDConfig(Settings):
    """As the authors' code on CIFAR-100.

    Args:
        temperature: the temperature T.
        alpha: the weight of the divergence.
        beta: the weight of the attention distances.
        width: the factor of the self-teacher's channels.
        depth: the layers of its blocks.
    """

    temperature: Positive = 4.0
    alpha: NotNegative = 2.0
    beta: NotNegative = 100.0
    width: Count = 2
    depth: Count = 2


class FRSKD(Method):
    """L = CE(f) + CE(t) + alpha KL_T(f <- stopgrad t) + beta sum_i mean (A(F_i) - stopgrad A(P_i))^2, t on BiFPNc."""

    Config: ClassVar[type] = FRSKDConfig
    config: FRSKDConfig
    about: ClassVar[About] = About(
        "A feature pyramid on the stage maps teaches the network its maps and predictions.",
        compute=1.67,
        maps=6.04,
        keeps="a feature pyramid",
        other_compute=(1.66, 5.64, 4.22),
        other_maps=(4.18, 4.27, 1.43),
    )

    def build(self) -> None:
        self.backbone.require_stages("frskd")
        channels = self.backbone.stage_channels()
        self.self_teacher = BiFPN(channels, self.backbone.num_classes, self.config.width, self.config.depth)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.backbone.feature_maps(images)
        _, refined = self.self_teacher([spatial(f) for f in maps])
        return {"self_teacher": refined, "backbone": self.backbone.head(self.backbone.pooled(maps[-1]))}

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        if draws is not None:
            images = draws.apply(images)
        maps = self.backbone.feature_maps(images)
        logits = self.backbone.head(self.backbone.pooled(maps[-1]))
        grids = [spatial(f) for f in maps]
        refined, teacher = self.self_teacher(grids)
        classify = cross_entropy if draws is None else draws.cross_entropy
        terms = {
            "cls": classify(logits, labels),
            "teacher_cls": classify(teacher, labels),
            "logit": kl_divergence(logits, teacher, self.config.temperature),
            "attention": total(
                F.mse_loss(attention_map(f), attention_map(p.detach())) for f, p in zip(grids, refined, strict=True)
            ),
        }
        loss = terms["cls"] + terms["teacher_cls"]
        loss = loss + self.config.alpha * terms["logit"] + self.config.beta * terms["attention"]
        return {"loss": loss, "output": logits, **terms}


@dataclass(frozen=True)
class FRSKDMixupConfig(FRSKDConfig):
    """As the authors' code.

    Args:
        temperature: the temperature T.
        alpha: the weight of the divergence.
        beta: the weight of the attention distances.
        width: the factor of the self-teacher's channels.
        depth: the layers of its blocks.
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
        return super().forward(images, labels, draws or self.draw(images))


def attention_map(feature_map: Tensor) -> Tensor:
    """A(F) of a map ``B x C x H x W``: the channels' mean of ReLU(F)^2, an L2-normalised vector over positions."""
    return F.normalize(full_precision(feature_map).relu().square().mean(1).flatten(1), dim=1)
