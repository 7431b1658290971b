"""What is attached to a backbone only while it trains: auxiliary branches, the self-teacher, the discriminators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import FeatureMap, spatial
from mixskd.methods.parts.losses import full_precision
from mixskd.methods.parts.streams import run_all


class AuxiliaryBranches(nn.Module):
    """The branches b_1 .. b_{K-1} of MixSKD Eq. 1 and 2: after stage k, fresh copies of the stages after it (zeta_k)
    and of the head (g_k).

    Gives Tables 6 to 11 of the paper for its backbones, and the like for any other. On a backbone that started from
    weights that exist, the copies start from them too, so that no random branch disturbs what it has learnt.
    """

    def __init__(self, backbone: StagedBackbone) -> None:
        super().__init__()
        tails, heads = backbone.fresh_branches()
        if backbone.pretrained:
            for k, tail in enumerate(tails, start=1):
                tail.load_state_dict(nn.Sequential(*backbone.stages[k:]).state_dict())
        self.alignments, self.heads = nn.ModuleList(tails), nn.ModuleList(heads)

    def logits(self, backbone: StagedBackbone, images: Tensor) -> dict[str, Tensor]:
        """``branch1`` .. ``branch{K-1}`` and ``backbone``: the logits ``B x N`` of all K classifiers."""
        *aligned, last = (backbone.pooled(f) for f in self(backbone.feature_maps(images)))
        named = {f"branch{k}": head(x) for k, (head, x) in enumerate(zip(self.heads, aligned, strict=True), 1)}
        return {**named, "backbone": backbone.head(last)}

    def forward(self, stage_maps: Sequence[FeatureMap]) -> list[FeatureMap]:
        """The K aligned maps F_1 .. F_K, each of the last stage's shape ``B x C x H x W``, from the K stage maps."""
        return [*run_all(list(self.alignments), stage_maps[:-1]), stage_maps[-1]]


class SelfTeacher(nn.Module):
    """h of MixSKD Eq. 11: concatenate K maps on channels, 1x1 convolution KC -> C, global pooling, linear classifier.

    ``channels`` is C, the pooled features. A 1x1 convolution commutes with an average and with the choice of a token,
    so it runs on the pooled vectors; on those too where the backbone's pooling is none of these. ``norm_act`` puts
    batch norm and ReLU between them, as neither paper nor released code do; then it runs on the maps, whose channels
    must be C, and averages their positions. ``stages`` (1-based) restricts h to chosen maps (Table 5, right).
    """

    def __init__(self, channels: int, num_classes: int, stages: Sequence[int], *, norm_act: bool = False) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.projection = nn.Linear(channels * len(self.stages), channels, bias=False)
        self.norm = nn.BatchNorm2d(channels) if norm_act else None
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, maps: Sequence[FeatureMap], pooled: Sequence[Tensor]) -> Tensor:
        """Logits ``B x N`` from the K maps ``B x C x H x W`` and their pooled features ``B x C``."""
        if self.norm is None:
            return self.classifier(self.projection(torch.cat([pooled[k - 1] for k in self.stages], dim=1)))
        stacked = torch.cat([full_precision(spatial(maps[k - 1])) for k in self.stages], dim=1)
        projected = self.projection(stacked.movedim(1, -1)).movedim(-1, 1)
        return self.classifier(self.norm(projected).relu().mean((2, 3)))


class Discriminators(nn.Module):
    """D_1 .. D_K of MixSKD Eq. 8: two-layer perceptrons on pooled maps, ``B x C`` -> 128 -> ``B x outputs`` logits."""

    def __init__(self, stages: int, channels: int, outputs: int = 1, hidden: int = 128) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, outputs)) for _ in range(stages)
        )

    def forward(self, pooled: Sequence[Tensor]) -> list[Tensor]:
        """K logits from K pooled maps."""
        return [tower(x) for tower, x in zip(self.towers, pooled, strict=True)]
