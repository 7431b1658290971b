"""FRSKD: Feature Refinement via Self-Knowledge Distillation (Ji et al., CVPR 2021), and its self-teacher BiFPNc."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.backbones.heads import Head
from mixskd.backbones.tokens import average, spatial
from mixskd.config.types import Count, NotNegative, Positive, Settings
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
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
        maps, logits = self.backbone.maps_and_logits(images)
        _, teacher = self.self_teacher([spatial(f) for f in maps])
        return {"self_teacher": teacher, "backbone": logits}

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, (maps, logits) = self.config, self.backbone.maps_and_logits(images)
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


def conv_norm_act(inplanes: int, planes: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inplanes, planes, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU())


def block(planes: int, depth: int) -> nn.Sequential:
    """``depth`` times depthwise 3x3, pointwise 1x1 and batch norm, with ReLU between them and none at the end."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Conv2d(planes, planes, 3, padding=1, groups=planes, bias=False))
        layers += [nn.Conv2d(planes, planes, 1, bias=False), nn.BatchNorm2d(planes)]
    return nn.Sequential(*layers)


class Fusion(nn.Module):
    """sum_j v_j ReLU(x_j) / (sum_j v_j + 1e-6) with learnable v_j = ReLU(w_j), w_j = 1 at first."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))

    def forward(self, *maps: Tensor) -> Tensor:
        """One map from maps of one shape."""
        v = self.weights.relu()
        v = v / (v.sum() + 1e-6)
        return torch.stack([v[j] * x.relu() for j, x in enumerate(maps)]).sum(0)


class BiFPN(nn.Module):
    """A classifier on refined maps P_1 .. P_n (each ``B x width c_i x H_i x W_i``) of the n stage maps.

    Args:
        channels: c_1 .. c_n of the stage maps.
        width: factor of the channels. depth: layers of each block.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 2, depth: int = 2) -> None:
        super().__init__()
        wide = [width * c for c in channels]
        n = len(channels)
        self.lateral = nn.ModuleList(map(conv_norm_act, channels, wide))
        self.lateral2 = nn.ModuleList(map(conv_norm_act, channels[1:], wide[1:]))
        self.up = nn.ModuleList(conv_norm_act(wide[i + 1], wide[i]) for i in range(n - 1))
        self.down = nn.ModuleList(conv_norm_act(wide[i - 1], wide[i]) for i in range(1, n))
        self.top_down = nn.ModuleList(block(wide[i], depth) for i in range(n - 1))
        self.bottom_up = nn.ModuleList(block(wide[i], depth) for i in range(1, n))
        self.top_down_fusion = nn.ModuleList(Fusion(2) for _ in range(n - 1))
        self.bottom_up_fusion = nn.ModuleList(Fusion(3 if i < n - 1 else 2) for i in range(1, n))
        self.classifier = Head(wide[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """P_1 .. P_n, before their ReLU, and the logits ``B x N``."""
        n, maps = len(maps), [x.relu() for x in maps]
        lateral = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        ups = [lateral[-1]]
        for i in reversed(range(n - 1)):
            above = self.up[i](F.interpolate(ups[0].relu(), size=maps[i].shape[-2:]))
            ups.insert(0, self.top_down[i](self.top_down_fusion[i](lateral[i], above)))
        refined = [ups[0]]
        for i in range(1, n):
            inputs = [self.lateral2[i - 1](maps[i]), *([ups[i]] if i < n - 1 else [])]
            below = self.down[i - 1](halve(refined[-1].relu(), maps[i].shape[-2:]))
            refined.append(self.bottom_up[i - 1](self.bottom_up_fusion[i - 1](*inputs, below)))
        return refined, self.classifier(average(refined[-1].relu()))


def halve(x: Tensor, size: torch.Size) -> Tensor:
    """3x3 max pooling with stride 2, padded with zeros as TensorFlow's SAME; ``x`` itself if it has ``size`` already.

    DenseNet's last two stages have maps of one size. Raises UserError where ``size`` is neither.
    """
    if x.shape[-2:] == size:
        return x
    height, width = (max((-(-s // 2) - 1) * 2 + 3 - s, 0) for s in x.shape[-2:])
    padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    halved = F.max_pool2d(padded, 3, 2)
    if halved.shape[-2:] != size:
        raise UserError(
            f"FRSKD needs stages that keep or halve a map's size; one turns {[*x.shape[-2:]]} into {[*size]}"
        )
    return halved
