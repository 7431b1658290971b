"""Modules that a backbone has only while it trains: auxiliary branches, the self-teacher, the discriminators."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixskd.backbones.heads import Head
from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import FeatureMap, spatial
from mixskd.methods.parts.losses import full_precision


class HeadOutputs(NamedTuple):
    """The K outputs of branches and backbone for a batch; the backbone's are last.

    ``maps``: F_1 .. F_K, ``B x C x H x W``. ``pooled``: their pooled features, ``B x C``. ``logits``: ``B x N``.
    """

    maps: list[FeatureMap]
    pooled: list[Tensor]
    logits: list[Tensor]


class AuxiliaryBranches(nn.Module):
    """The branches b_1 .. b_{K-1} of MixSKD Eq. 1 and 2: fresh copies of the stages after stage k (zeta_k) and of the
    head (g_k).

    For the paper's backbones these are the branches of Tables 6 to 11. If the backbone was pretrained, the copies of
    its stages start from its weights. With ``enabled=False`` there are no branches, and K is 1.
    """

    def __init__(self, backbone: StagedBackbone, *, enabled: bool = True) -> None:
        super().__init__()
        tails, heads = backbone.fresh_branches() if enabled else ([], [])
        if backbone.pretrained:
            for k, tail in enumerate(tails, start=1):
                tail.load_state_dict(nn.Sequential(*backbone.stages[k:]).state_dict())
        self.alignments, self.heads = nn.ModuleList(tails), nn.ModuleList(heads)

    def forward(self, stage_maps: Sequence[FeatureMap]) -> list[FeatureMap]:
        """The aligned maps F_1 .. F_K, each with the last stage's shape ``B x C x H x W``, from the stage maps."""
        return [*(align(x) for align, x in zip(self.alignments, stage_maps, strict=False)), stage_maps[-1]]

    def classify(self, backbone: StagedBackbone, maps: list[FeatureMap]) -> HeadOutputs:
        """The aligned ``maps`` with the features and logits of each head for its map."""
        pooled = [backbone.pooled(f) for f in maps]
        heads = [*self.heads, backbone.head]
        return HeadOutputs(maps, pooled, [head(x) for head, x in zip(heads, pooled, strict=True)])

    def logits(self, backbone: StagedBackbone, images: Tensor) -> dict[str, Tensor]:
        """``branch1`` .. ``branch{K-1}`` and ``backbone``: the logits ``B x N`` of all K classifiers."""
        outputs = self.classify(backbone, self(backbone.feature_maps(images)))
        names = [*(f"branch{k}" for k in range(1, len(outputs.logits))), "backbone"]
        return dict(zip(names, outputs.logits, strict=True))


class SelfTeacher(nn.Module):
    """h of MixSKD Eq. 11: concatenate K maps on channels, 1x1 convolution KC -> C, global pooling, linear classifier.

    ``channels`` is C, the width of the pooled features. A 1x1 convolution commutes with an average and with the choice
    of a token, so it runs on the pooled features, also for a backbone with another pooling. ``norm_act`` adds batch
    norm and ReLU after it, which neither the paper nor the released code has; then it runs on the maps, whose channels
    must be C, and averages their positions. ``stages`` (from 1) are the maps that h uses (Table 5, right).
    """

    def __init__(self, channels: int, num_classes: int, stages: Sequence[int], *, norm_act: bool = False) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.projection = Head(channels * len(self.stages), channels, bias=False)
        self.norm = nn.BatchNorm2d(channels) if norm_act else None
        self.classifier = Head(channels, num_classes)

    def forward(self, maps: Sequence[FeatureMap], pooled: Sequence[Tensor]) -> Tensor:
        """Logits ``B x N`` from the K maps ``B x C x H x W`` and their pooled features ``B x C``."""
        if self.norm is None:
            return self.classifier(self.projection(torch.cat([pooled[k - 1] for k in self.stages], dim=1)))
        stacked = torch.cat([full_precision(spatial(maps[k - 1])) for k in self.stages], dim=1)
        projected = self.projection(stacked.movedim(1, -1)).movedim(-1, 1)
        return self.classifier(self.norm(projected).relu().mean((2, 3)))


class Discriminators(nn.Module):
    """D_1 .. D_K of MixSKD Eq. 8: two-layer perceptrons on pooled maps, ``B x C`` -> 128 -> ``B x outputs`` logits."""

    def __init__(self, stages: int, channels: int, outputs: int = 1) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(Head(channels, 128), nn.ReLU(), Head(128, outputs)) for _ in range(stages)
        )

    def forward(self, pooled: Sequence[Tensor]) -> list[Tensor]:
        """K logits from K pooled maps."""
        return [tower(x) for tower, x in zip(self.towers, pooled, strict=True)]
