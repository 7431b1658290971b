"""Interpolation consistency training (Verma et al., IJCAI 2019) on labelled images, a cheap form of MixSKD."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import each
from mixskd.config.types import BelowOne, NotNegative, Positive, Settings, Share
from mixskd.data.needs import DataNeeds, take
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.averaging import average_into, average_statistics
from mixskd.methods.parts.losses import full_precision, kl_divergence, mean_square, relative_distance, weighted_sum
from mixskd.methods.parts.mixing import Mix, MixName, part_of, sample_mix

Consistency = Literal["logits", "probabilities", "squared"]


@dataclass(frozen=True)
class ICTConfig(Settings):
    """Ours, between MixSKD and interpolation consistency training; see the fidelity page.

    Args:
        mix: ``mixup`` or ``cutmix``.
        alpha: the parameter of Beta(alpha, alpha).
        decay: of the moving average that teaches; the first updates count more, as in a mean.
        weight: of the consistency term.
        warmup: the share of the epochs over which the weights of the teacher's terms grow linearly from 0.
        temperature: the temperature T.
        consistency: what the student's output on a mix is compared with: ``logits``, T^2 KL from the mix of the
            teacher's logits (MixSKD, Eq. 9); ``probabilities``, T^2 KL from the mix of its softmax outputs;
            ``squared``, the squared distance of the softmax outputs, from the mix of its logits (the authors' code).
        feature: the weight of the normalised distance of the last maps; 0 leaves it out.
        teacher_share: the share of each batch that the teacher sees; 0.5 halves its cost. Pairs are drawn within it.
        label_smoothing: the share of each mixed label that is spread over all classes.
    """

    mix: MixName = "mixup"
    alpha: Positive = 1.0
    decay: BelowOne = 0.99
    weight: NotNegative = 1.0
    warmup: Share = 0.25
    temperature: Positive = 3.0
    consistency: Consistency = "logits"
    feature: NotNegative = 0.0
    teacher_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    label_smoothing: BelowOne = 0.0


class ICT(Method):
    """L = CE(f(x~), y~) + w(t) D(f(x~), mix(f'(x), f'(x[pi]))); f' is the moving average of f, in evaluation mode.

    The student f sees mixes only, the teacher f' only unmixed images. The buffer ``updates`` counts the updates of f'.
    Outside mixskd's trainer, call :meth:`after_update` after each step of the optimizer.
    """

    Config = ICTConfig
    config: ICTConfig
    about = About(
        "The moving average of the network predicts two images, and the network agrees on their mix.",
        compute=1.33,
        images=2,
        keeps="the moving average of the network",
    )
    updates: Tensor

    def build(self) -> None:
        if self.config.feature > 0:
            self.backbone.require_features("ict with feature above 0")
        self.teacher = copy.deepcopy(self.backbone).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros(()))

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(progress=self.config.warmup > 0)

    def train(self, mode: bool = True) -> ICT:
        super().train(mode)
        self.teacher.eval()
        return self

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        c = self.config
        return sample_mix(images, c.alpha, c.mix, within=part_of(len(images), c.teacher_share), generator=generator)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        c, mix, seen = self.config, draws or self.draw(images), part_of(len(images), self.config.teacher_share)
        maps, logits = self.backbone.maps_and_logits(mix.apply(images))
        with torch.no_grad():
            target_maps, target = self.teacher.maps_and_logits(images[:seen])
            del target_maps[:-1]  # their memory is free before the loss
        with torch.autocast(images.device.type, enabled=False):
            part = mix.first(seen)
            ramp, consistency = self._ramp(extra), CONSISTENCIES[c.consistency]
            terms: dict[str, tuple[float | Tensor, Tensor]] = {
                "cls_mix": (1.0, self.ce(logits, labels, c.label_smoothing, mix)),
                "consistency": (ramp * c.weight, consistency(logits[:seen], target, part, c.temperature)),
            }
            if c.feature > 0:
                distance = relative_distance(part.apply(target_maps[-1]), each(lambda x: x[:seen], maps[-1]))
                terms["feature"] = ramp * c.feature, distance
            return {"output": logits, **weighted_sum(**terms)}

    def _ramp(self, extra: dict[str, Tensor]) -> float | Tensor:
        """The share of the teacher's weights by the progress of the run."""
        warmup = self.config.warmup
        return 1.0 if warmup == 0 else (take(extra, "progress") / warmup).clamp(max=1)

    @torch.no_grad()
    def after_update(self) -> None:
        """Move the teacher towards the network."""
        self.updates += 1
        average_into(self.teacher, self.backbone, (1 / self.updates).clamp(min=1 - self.config.decay))
        average_statistics(self.teacher)


def logit_consistency(student: Tensor, teacher: Tensor, mix: Mix, temperature: float) -> Tensor:
    """T^2 KL(softmax(mix(teacher) / T) || softmax(student / T)) of logits ``B x N`` (MixSKD, Eq. 9 and 10)."""
    return kl_divergence(student=student, teacher=mix.apply(teacher), temperature=temperature)


def probability_consistency(student: Tensor, teacher: Tensor, mix: Mix, temperature: float) -> Tensor:
    """T^2 KL(mix(softmax(teacher / T)) || softmax(student / T)) of logits ``B x N`` (ICT mixes predictions)."""
    target = mix.apply((full_precision(teacher.detach()) / temperature).softmax(1))
    log_p = F.log_softmax(full_precision(student) / temperature, dim=1)
    return F.kl_div(log_p, target, reduction="batchmean") * temperature**2


def squared_consistency(student: Tensor, teacher: Tensor, mix: Mix, temperature: float) -> Tensor:
    """The mean squared difference of softmax(student) and softmax(mix(teacher)), as ICT's code; T is not used."""
    return mean_square(full_precision(student).softmax(1) - mix.apply(teacher.detach()).softmax(1))


CONSISTENCIES = {
    "logits": logit_consistency,
    "probabilities": probability_consistency,
    "squared": squared_consistency,
}
