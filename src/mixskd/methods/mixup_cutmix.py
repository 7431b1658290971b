"""Mixup and CutMix alternating at random, as timm and DeiT train (Touvron et al., ICML 2021)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixskd.config.types import BelowOne, Positive, Settings, Share
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.mixing import Mix, sample_mix


@dataclass(frozen=True)
class MixupCutMixConfig(Settings):
    """As DeiT's recipe in timm.

    Args:
        alpha: mixup's parameter of Beta(alpha, alpha).
        cutmix_alpha: CutMix's parameter of Beta(alpha, alpha).
        cutmix_probability: the probability that a batch gets CutMix; otherwise it gets mixup.
        label_smoothing: the share of each mixed label that is spread over all classes; 0.1 in DeiT's recipe.
    """

    alpha: Positive = 0.8
    cutmix_alpha: Positive = 1.0
    cutmix_probability: Share = 0.5
    label_smoothing: BelowOne = 0.0


class MixupCutMix(Method):
    """L = lam CE(f(x~), y) + (1 - lam) CE(f(x~), y[pi]); each batch x~ is mixed by mixup or by CutMix."""

    Config = MixupCutMixConfig
    config: MixupCutMixConfig
    several_labels = True
    about = About("Each batch is mixed by mixup or by CutMix, drawn at random.")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Mix, Mix]:
        """A mixup and a CutMix of the same pairs, one of which changes nothing: so all steps do the same work."""
        c = self.config
        mixup = sample_mix(images, c.alpha, generator=generator)
        cutmix = sample_mix(images, c.cutmix_alpha, "cutmix", generator=generator)
        chosen = torch.rand((), generator=generator, device=images.device) < c.cutmix_probability
        assert cutmix.box is not None
        return (
            mixup._replace(lam=torch.where(chosen, 1.0, mixup.lam)),
            cutmix._replace(
                lam=torch.where(chosen, cutmix.lam, 1.0), permutation=mixup.permutation, box=cutmix.box * chosen
            ),
        )

    def image_mixes(self, draws: tuple[Mix, Mix]) -> list[Mix]:
        mixup, cutmix = draws
        return [mixup if cutmix.lam == 1 else cutmix]

    def forward(
        self, images: Tensor, labels: Tensor, draws: tuple[Mix, Mix] | None = None, **extra: Tensor
    ) -> dict[str, Tensor]:
        mixup, cutmix = draws or self.draw(images)
        logits = self.backbone(cutmix.apply(mixup.apply(images)))
        both = mixup._replace(lam=mixup.lam * cutmix.lam)
        return {"loss": self.ce(logits, labels, self.config.label_smoothing, both), "output": logits}
