"""Zipf's label smoothing: one-pass self-distillation by the ranks of the classes (Liang et al., ECCV 2022)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.backbones.heads import Head
from mixskd.backbones.tokens import FeatureMap, average, spatial
from mixskd.config.types import Count, NotNegative, Positive, Settings
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import as_probabilities, full_precision, total, weighted_sum
from mixskd.methods.parts.zipf import non_target_divergence, ranks, zipf_weights


@dataclass(frozen=True)
class ZipfLSConfig(Settings):
    """As the authors' PyTorch commands for CIFAR-100.

    Args:
        weight: the weight lambda of the divergence; 0.1 for CIFAR-100 and ImageNet, 1 for TinyImageNet and iNaturalist.
        power: the exponent of the rank in 1 / rank^power.
        dense: rank the classes by the votes of the maps' positions; if false, by the logits.
        depth: how many stages vote, from the last one backwards; each but the last gets its own linear classifier.
        alpha: the weight of those classifiers' cross-entropy.
        upsample: double the maps' sides (bilinear) before the vote.
    """

    weight: NotNegative = 0.1
    power: Positive = 1.0
    dense: bool = True
    depth: Count = 1
    alpha: NotNegative = 0.1
    upsample: bool = True


class ZipfLS(Method):
    """L = CE(f) + lambda KL(Zipf(rank) || f over the other classes) + alpha sum CE of the deeper voters."""

    Config = ZipfLSConfig
    config: ZipfLSConfig
    soft_labels = False
    about = About("The classes other than the label get soft labels by rank, after Zipf's law.")

    def build(self) -> None:
        if self.config.dense or self.config.depth > 1:
            self.backbone.require_stages("zipf_ls")
        channels = [] if self.config.depth == 1 else self.backbone.stage_channels()
        if self.config.depth > max(len(channels), 1):
            raise UserError(f"depth must be from 1 to {len(channels)} for this backbone, not {self.config.depth}")
        earlier = channels[-self.config.depth : -1]
        self.stage_heads = nn.ModuleList(Head(width, self.backbone.num_classes) for width in earlier)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        maps, logits = self.backbone.maps_and_logits(images)
        named = {f"stage{len(maps) - len(self.stage_heads) + i}": z for i, z in enumerate(self._earlier(maps))}
        return {**named, "backbone": logits}

    def _earlier(self, maps: list[FeatureMap]) -> list[Tensor]:
        """The logits ``B x N`` of the stages before the last that vote."""
        voting = maps[-self.config.depth : -1]
        return [head(average(x)) for head, x in zip(self.stage_heads, voting, strict=True)]

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, (maps, logits) = self.config, self.backbone.maps_and_logits(images)
        voters = zip([*self.stage_heads, self.backbone.head], maps[-c.depth :], strict=True)
        with torch.no_grad():
            scores = votes(voters, upsample=c.upsample) if c.dense else full_precision(logits)
        terms = zipf_ls_loss(
            logits, self._earlier(maps), scores, labels, weight=c.weight, alpha=c.alpha, power=c.power, ce=self.ce
        )
        return {"output": logits, **terms}


def zipf_ls_loss(
    logits: Tensor, stage_logits: Sequence[Tensor], scores: Tensor, labels: Tensor,
    *, weight: float, alpha: float, power: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + alpha ``stage_cls`` + weight ``zipf``, from logits and scores ``B x N``.

    ``cls`` is the cross-entropy of ``logits``, ``stage_cls`` that of the earlier stages, if any. ``zipf`` is the
    divergence of the other classes' probabilities from 1 / rank^power, ranked by ``scores``.
    """
    terms: dict[str, tuple[float, Tensor]] = {"cls": (1, ce(logits, labels))}
    if stage_logits:
        terms["stage_cls"] = alpha, total(ce(z, labels) for z in stage_logits)
    divergence = non_target_divergence(logits, labels, zipf_weights(ranks(scores), labels, power))
    return weighted_sum(**terms, zipf=(weight, divergence))


def votes(voters: Iterable[tuple[nn.Module, FeatureMap]], *, upsample: bool) -> Tensor:
    """The number of positions that choose each class (``B x N``), from pairs of a classifier and its map."""
    counts = []
    for head, feature_map in voters:
        x = full_precision(spatial(feature_map))
        if upsample:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        z = head(x.flatten(2).transpose(1, 2).flatten(0, 1))  # (B H W) x N
        counts.append(as_probabilities(z.argmax(1), z).unflatten(0, (len(x), -1)).sum(1))
    return torch.stack(counts).sum(0)
