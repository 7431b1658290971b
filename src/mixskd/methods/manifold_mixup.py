"""Manifold Mixup (Verma et al., ICML 2019)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.backbones.tokens import FeatureMap
from mixskd.config.types import Positive, Settings, WholeNumber
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import as_probabilities
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class ManifoldMixupConfig(Settings):
    """As the authors' code for CIFAR.

    Args:
        alpha: the parameter of Beta(alpha, alpha).
        depth: the mix is made at one of the places 0 (the images) to ``depth`` (after that stage), drawn uniformly.
        loss: ``ce``; the authors' ``bce`` is binary cross-entropy on the softmax.
    """

    alpha: Positive = 2.0
    depth: WholeNumber = 2
    loss: Literal["ce", "bce"] = "ce"


class ManifoldMixup(Method):
    """L = CE(f(x) with its map after a random stage mixed, y~)."""

    Config = ManifoldMixupConfig
    config: ManifoldMixupConfig
    about = About("Mix the maps at a random depth.")

    def build(self) -> None:
        if self.config.depth:
            self.backbone.require_stages("manifold_mixup")
        stages = len(self.backbone.stages)
        if self.config.depth > stages:
            raise UserError(f"depth must be from 0 to {stages}, the stages of this backbone, not {self.config.depth}")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Mix, Tensor]:
        mix = sample_mix(images, self.config.alpha, generator=generator)
        place = torch.randint(self.config.depth + 1, (), generator=generator, device=images.device)
        return mix, place

    def image_mixes(self, draws: tuple[Mix, Tensor]) -> list[Mix]:
        mix, place = draws
        return [mix] if int(place) == 0 else []

    def forward(
        self, images: Tensor, labels: Tensor, draws: tuple[Mix, Tensor] | None = None, **extra: Tensor
    ) -> dict[str, Tensor]:
        mix, place = draws or self.draw(images)
        x: FeatureMap = images
        for k, stage in enumerate([nn.Identity(), *self.backbone.stages]):
            x = stage(x)
            if k <= self.config.depth:  # lam = 1 changes nothing, so that no Python branch depends on ``place``
                x = mix._replace(lam=torch.where(place == k, mix.lam, 1.0)).apply(x)
        logits = self.backbone.head(self.backbone.pooled(x))
        if self.config.loss == "ce":
            return {"loss": self.ce(logits, labels, mix=mix), "output": logits}
        with torch.autocast(images.device.type, enabled=False):
            loss = mixed_bce_loss(logits, labels, mix, self.ce)
        return {"loss": loss, "output": logits}


def mixed_bce_loss(logits: Tensor, labels: Tensor, mix: Mix, ce: CrossEntropy = PLAIN) -> Tensor:
    """Binary cross-entropy of softmax(z) with the mixed labels, mean over images and classes; call without autocast."""
    p = ce.adjusted(logits).softmax(1)
    return F.binary_cross_entropy(p, mix.apply(as_probabilities(labels, p)), ce.weighted(torch.ones_like(p)))
