"""FRSKD: Feature Refinement via Self-Knowledge Distillation (Ji et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import spatial
from mixskd.config.types import Count, NotNegative, Positive, Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.bifpn import BiFPN
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, kl_divergence, total, weighted_sum


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
        c, maps = self.config, self.backbone.feature_maps(images)
        logits = self.backbone.head(self.backbone.pooled(maps[-1]))
        grids = [spatial(f) for f in maps]
        refined, teacher = self.self_teacher(grids)
        terms = frskd_loss(
            logits, teacher, grids, refined, labels, temperature=c.temperature, alpha=c.alpha, beta=c.beta, ce=self.ce
        )
        return {"output": logits, **terms}


def frskd_loss(
    logits: Tensor, teacher: Tensor, maps: Sequence[Tensor], refined: Sequence[Tensor], labels: Tensor,
    *, temperature: float, alpha: float, beta: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + ``teacher_cls`` + alpha ``logit`` + beta ``attention``, from logits ``B x N`` and maps.

    ``logits`` and ``maps`` (``B x C_i x H_i x W_i``) come from the backbone, ``teacher`` and ``refined`` from the
    self-teacher.
    ``cls`` and ``teacher_cls`` are cross-entropies, ``logit`` is the divergence from the self-teacher, ``attention``
    the sum of the squared distances of the attention maps.
    """
    distances = (F.mse_loss(attention_map(f), attention_map(p.detach())) for f, p in zip(maps, refined, strict=True))
    return weighted_sum(
        cls=(1, ce(logits, labels)),
        teacher_cls=(1, ce(teacher, labels)),
        logit=(alpha, kl_divergence(student=logits, teacher=teacher, temperature=temperature)),
        attention=(beta, total(distances)),
    )


def attention_map(feature_map: Tensor) -> Tensor:
    """A(F) of a map ``B x C x H x W``: the channels' mean of ReLU(F)^2, an L2-normalised vector over positions."""
    return F.normalize(full_precision(feature_map).relu().square().mean(1).flatten(1), dim=1)
