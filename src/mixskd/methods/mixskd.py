"""MixSKD: self-knowledge distillation from mixup (Yang et al., ECCV 2022). Equation numbers are the paper's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import FeatureMap, each, halves
from mixskd.config.types import BelowOne, NotNegative, Positive, Settings, Share
from mixskd.data.needs import DataNeeds, take
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.branches import AuxiliaryBranches, Discriminators, HeadOutputs, SelfTeacher
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import (
    discriminator_loss,
    feature_distance,
    full_precision,
    relative_distance,
    reverse_gradient,
    total,
    weighted_sum,
)
from mixskd.methods.parts.mixing import Mix, MixName, part_of, sample_mix

FEATURE_DISTANCES = {"squared": feature_distance, "normalised": relative_distance}
DiscriminatorMode = Literal["joint", "grl", "d_only", "frozen", "off"]


@dataclass(frozen=True)
class MixSKDConfig(Settings):
    """The switches of MixSKD; the defaults are the paper's.

    Args:
        preset: ``paper``; ``released_cifar`` or ``released_imagenet`` set other defaults, those of the released code;
            ``stable`` and ``light`` are ours, see the fidelity page.
        mix: ``mixup`` (the paper), or ``cutmix`` on images and maps alike.
        alpha: the parameter of Beta(alpha, alpha); 0.4 for CIFAR-100 and fine-grained sets, 0.2 for ImageNet.
        per_sample: draw one lambda per image, not one per step (mixup only: CutMix draws one box for the whole batch).
        derangement: never pair an image with itself.
        temperature: the temperature T of Eq. 10 and 12.
        scale_kl: multiply the divergences of Eq. 10 and 12 by T^2, as the released code does.
        beta: the weight of L_feature (Eq. 7). The paper says that 1 to 10 work; 0 switches the term off.
        beta_warmup: the share of the epochs over which beta grows linearly from 0; 0 as in the paper, where beta is
            constant.
        feature_distance: ``squared`` (Eq. 7), or ``normalised``, which divides it by the mean square of the maps. Then
            maps with small values do not make it smaller.
        gamma: the weight of L_dis (Eq. 8).
        mu: the weight of L_b_logit + L_cls_h + L_f_logit (Eq. 10 to 12).
        original_weight: the weight of the originals' cross-entropy; 1 as released, 2 is what Eq. 5 says literally, in
            expectation.
        mix_cls: use the cross-entropy on the mixed images (Eq. 5).
        branch_logit: use the mutual distillation of the branches (Eq. 10).
        teacher_cls: use the cross-entropy of the self-teacher (Eq. 11); without it the self-teacher stays as
            initialised.
        teacher_logit: use the distillation of the self-teacher into the backbone (Eq. 12).
        discriminator: ``joint`` minimises Eq. 13 over all parameters, as printed; ``grl`` reverses the gradient into
            the features, which makes the game adversarial; ``d_only`` trains only the discriminators; ``frozen`` leaves
            them as initialised; ``off`` has none.
        two_logit: discriminators with two sigmoids instead of one, as released.
        teacher_stages: the maps that the self-teacher uses, counted from 1; all if empty (Table 5, right).
        teacher_detach: keep the gradient of Eq. 11 out of branches and backbone.
        teacher_norm_act: put batch norm and ReLU after the self-teacher's convolution.
        separate_bn: forward originals and mixes separately, each with its own batch statistics.
        branches: train the branches b_1 .. b_(K-1). Without them there are only the backbone's own map and classifier,
            so Eq. 10 is empty and the self-teacher uses one map.
        share: the share of each batch that has all the terms; the rest has only the backbone's cross-entropy on mixes.
        label_smoothing: the share of each label, mixed labels included, that is spread over all classes; 0 as in the
            paper.
    """

    preset: Literal["paper", "released_cifar", "released_imagenet", "stable", "light"] = "paper"
    mix: MixName = "mixup"
    alpha: Positive = 0.4
    per_sample: bool = False
    derangement: bool = False
    temperature: Positive = 3.0
    scale_kl: bool = True
    beta: NotNegative = 1.0
    beta_warmup: Share = 0.0
    feature_distance: Literal["squared", "normalised"] = "squared"
    gamma: NotNegative = 1.0
    mu: NotNegative = 1.0
    original_weight: NotNegative = 1.0
    mix_cls: bool = True
    branch_logit: bool = True
    teacher_cls: bool = True
    teacher_logit: bool = True
    discriminator: DiscriminatorMode = "joint"
    two_logit: bool = False
    teacher_stages: tuple[int, ...] = ()
    teacher_detach: bool = False
    teacher_norm_act: bool = False
    separate_bn: bool = False
    branches: bool = True
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    label_smoothing: BelowOne = 0.0

    # gamma 0.5: the released loss is the mean over both halves of the batch, Eq. 8 the sum of their means.
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "released_cifar": {
            "mix_cls": False, "teacher_cls": False, "discriminator": "frozen", "two_logit": True, "gamma": 0.5,
        },
        "released_imagenet": {"alpha": 0.2, "discriminator": "frozen", "two_logit": True, "gamma": 0.5},
        "stable": {"feature_distance": "normalised", "beta_warmup": 0.25},
        "light": {"branches": False, "discriminator": "off"},
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_sample and self.mix != "mixup":
            raise UserError(f"per_sample works only with mix mixup, not {self.mix}; leave one of them out")
        distils = self.mu > 0 and (self.branch_logit or self.teacher_cls or self.teacher_logit)
        discriminates = self.gamma > 0 and self.discriminator != "off"
        if not (self.original_weight > 0 or self.mix_cls or self.beta > 0 or discriminates or distils):
            raise UserError("every term of the loss is switched off; leave one on")


class MixSKD(Method):
    """L = L_cls_mixup + beta L_feature + gamma L_dis + mu (L_b_logit + L_cls_h + L_f_logit) (Eq. 13)."""

    Config = MixSKDConfig
    config: MixSKDConfig
    several_labels = True
    about = About(
        "The network and its branches agree on a mix of two images and on the mix of their two outputs.",
        compute=4,
        images=2,
        maps=3.32,
        keeps="branches, self-teacher and discriminators",
        other_compute=(4.72, 5.13, 5.86),
        other_maps=(2.92, 3.65, 3.83),
    )

    def build(self) -> None:
        config, backbone = self.config, self.backbone
        if config.branches:
            backbone.require_stages("mixskd")
        else:
            backbone.require_features("mixskd")
        stages = len(backbone.stages) if config.branches else 1
        chosen = config.teacher_stages or tuple(range(1, stages + 1))
        if not set(chosen) <= set(range(1, stages + 1)):
            which = "for this backbone" if config.branches else "without branches"
            raise UserError(f"teacher_stages must be from 1 to {stages} {which}, not {chosen}")
        self.branches = AuxiliaryBranches(backbone, enabled=config.branches)
        if config.teacher_norm_act and backbone.stage_channels()[-1] != backbone.feature_dim:
            raise UserError(
                f"teacher_norm_act needs pooled features of the last map's width, which {backbone.name} lacks"
            )
        self.self_teacher = SelfTeacher(
            backbone.feature_dim, backbone.num_classes, chosen, norm_act=config.teacher_norm_act
        ).requires_grad_(config.teacher_cls and config.mu > 0)
        self.discriminators: Discriminators | None = None
        if config.discriminator != "off" and config.gamma > 0:
            self.discriminators = Discriminators(stages, backbone.feature_dim, 2 if config.two_logit else 1)
            self.discriminators.requires_grad_(config.discriminator != "frozen")

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(progress=self.config.beta > 0 and self.config.beta_warmup > 0)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        c = self.config
        return sample_mix(
            images, c.alpha, c.mix, per_sample=c.per_sample, derangement=c.derangement,
            within=part_of(len(images), c.share), generator=generator,
        )  # fmt: skip

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        return self.branches.logits(self.backbone, images)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        mix, full = draws or self.draw(images), part_of(len(images), self.config.share)
        if full == len(images):
            return self._whole(images, labels, mix, extra)
        out = self._whole(images[:full], labels[:full], mix.first(full), extra)
        rest, weight = mix.rest(full), full / len(images)
        logits = self.backbone(rest.apply(images[full:]))
        cls = self.ce(logits, labels[full:], self.config.label_smoothing, rest)
        loss = weight * out["loss"] + (1 - weight) * cls
        return {**out, "loss": loss, "output": torch.cat([out["output"], logits]), "cls_rest": cls}

    def _whole(self, images: Tensor, labels: Tensor, mix: Mix, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """All terms, on every image."""
        c = self.config
        maps, mixed_maps = self._aligned_maps(images, mix.apply(images))  # F_k(x) and F_k(x~) of Eq. 2 and 4
        with torch.autocast(images.device.type, enabled=False):
            originals = self.branches.classify(self.backbone, maps)
            mixed = self.branches.classify(self.backbone, mixed_maps)
            interpolated = interpolate(originals, mix, self.backbone)  # Eq. 6 and 9

            smoothing, T, scale = c.label_smoothing, c.temperature, c.scale_kl
            terms: dict[str, tuple[float | Tensor, Tensor]] = {}
            if c.original_weight > 0:  # Eq. 5, its summands over x_i and x_j
                terms["cls"] = c.original_weight, total(self.ce(z, labels, smoothing) for z in originals.logits)
            if c.mix_cls:  # Eq. 5, its summand over the mix
                terms["cls_mix"] = 1.0, total(self.ce(z, labels, smoothing, mix) for z in mixed.logits)
            if c.beta > 0:  # Eq. 7
                distance = FEATURE_DISTANCES[c.feature_distance]
                terms["feature"] = self._beta(extra), total(map(distance, interpolated.maps, mixed.maps))
            if self.discriminators is not None:  # Eq. 8
                judged = (self._judge(self.discriminators, side.pooled) for side in (interpolated, mixed))
                terms["discriminator"] = c.gamma, total(map(discriminator_loss, *judged))
            if c.mu > 0 and c.branch_logit and c.branches:  # Eq. 10
                mutual = branch_logit_loss(interpolated.logits, mixed.logits, T, scale=scale, ce=self.ce)
                terms["branch_logit"] = c.mu, mutual
            if c.mu > 0 and (c.teacher_cls or c.teacher_logit):
                h_interpolated, h_mixed = self._teach(interpolated), self._teach(mixed)
                if c.teacher_cls:  # Eq. 11
                    both = (h_interpolated, h_mixed)
                    terms["teacher_cls"] = c.mu, total(self.ce(h, labels, smoothing, mix) for h in both)
                if c.teacher_logit:  # Eq. 12
                    taught = teacher_logit_loss(
                        interpolated.logits[-1], mixed.logits[-1], h_interpolated, h_mixed, T, scale=scale, ce=self.ce
                    )
                    terms["teacher_logit"] = c.mu, taught
            return {"output": originals.logits[-1], **weighted_sum(**terms)}  # Eq. 13

    def _beta(self, extra: dict[str, Tensor]) -> float | Tensor:
        """beta, during its warm-up times the share of the warm-up that is done."""
        c = self.config
        return c.beta if c.beta_warmup == 0 else c.beta * (take(extra, "progress") / c.beta_warmup).clamp(max=1)

    def _maps(self, images: Tensor) -> list[FeatureMap]:
        """The K aligned maps of ``images``."""
        return self.branches(self.backbone.feature_maps(images))

    def _aligned_maps(self, images: Tensor, mixes: Tensor) -> tuple[list[FeatureMap], list[FeatureMap]]:
        """The K aligned maps of the originals and of their mixes, in one forward unless ``separate_bn``."""
        if self.config.separate_bn:
            return self._maps(images), self._maps(mixes)
        pairs = [halves(f) for f in self._maps(torch.cat([images, mixes]))]
        return [originals for originals, _ in pairs], [mixed for _, mixed in pairs]

    def _judge(self, discriminators: Discriminators, pooled: list[Tensor]) -> list[Tensor]:
        """The discriminators' logits, with the gradient into the features that the mode asks for."""
        into_features = {"grl": reverse_gradient, "d_only": torch.detach}.get(self.config.discriminator)
        return discriminators([into_features(p) for p in pooled] if into_features else pooled)

    def _teach(self, side: HeadOutputs) -> Tensor:
        """The self-teacher's logits ``B x N`` from the maps of one side."""
        maps, pooled = side.maps, side.pooled
        if self.config.teacher_detach:
            maps, pooled = [each(torch.detach, f) for f in maps], [p.detach() for p in pooled]
        return self.self_teacher(maps, pooled)


def interpolate(originals: HeadOutputs, mix: Mix, backbone: StagedBackbone) -> HeadOutputs:
    """The interpolated maps I_k (Eq. 6), their pooled features and the interpolated logits (Eq. 9), at least fp32."""
    maps = [mix.apply(each(full_precision, f)) for f in originals.maps]
    if backbone.pool is None and mix.box is None:  # an average is linear: it commutes with mixup
        pooled = [mix.apply(full_precision(p)) for p in originals.pooled]
    else:
        pooled = [backbone.pooled(f) for f in maps]
    return HeadOutputs(maps, pooled, [mix.apply(full_precision(z)) for z in originals.logits])


def branch_logit_loss(
    interpolated: Sequence[Tensor], mixed: Sequence[Tensor], temperature: float, *, scale: bool = True,
    ce: CrossEntropy = PLAIN,
) -> Tensor:  # fmt: skip
    """L_b_logit of Eq. 10: the two logits ``B x N`` of each branch teach each other.

    Sum over k < K of KL(student = interpolated, teacher = mixed) + KL(student = mixed, teacher = interpolated); the
    backbone's logits, the last of the K, take no part. ``scale`` multiplies by T^2. The teachers get no gradient.
    """
    mutual = (  # Eq. 12 where each branch is its own teacher
        teacher_logit_loss(z_i, z_m, z_i, z_m, temperature, scale=scale, ce=ce)
        for z_i, z_m in zip(interpolated[:-1], mixed[:-1], strict=True)
    )
    return total(mutual, interpolated[-1])


def teacher_logit_loss(
    interpolated: Tensor, mixed: Tensor, teacher_interpolated: Tensor, teacher_mixed: Tensor, temperature: float,
    *, scale: bool = True, ce: CrossEntropy = PLAIN,
) -> Tensor:  # fmt: skip
    """L_f_logit of Eq. 12: the self-teacher's logits teach the backbone's (``B x N``), crosswise.

    KL(student = interpolated, teacher = h of the mixed maps) + KL(student = mixed, teacher = h of the interpolated
    maps). ``scale`` multiplies by T^2. The self-teacher gets no gradient.
    """
    return ce.divergence(
        student=interpolated, teacher=teacher_mixed, temperature=temperature, scale=scale
    ) + ce.divergence(student=mixed, teacher=teacher_interpolated, temperature=temperature, scale=scale)
