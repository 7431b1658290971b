"""MixSKD: self-knowledge distillation from mixup (Yang et al., ECCV 2022). Equation numbers are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixskd.errors import UserError
from mixskd.methods.base import Method, check_choice, check_not_negative, check_positive
from mixskd.methods.parts.branches import AuxiliaryBranches, Discriminators, SelfTeacher
from mixskd.methods.parts.losses import (
    cross_entropy,
    discriminator_loss,
    feature_distance,
    kl_divergence,
    reverse_gradient,
    total,
)
from mixskd.methods.parts.mixing import MIXES, Mix, sample_mix

DISCRIMINATOR_MODES = ("joint", "grl", "d_only", "frozen", "off")


@dataclass(frozen=True)
class MixSKDConfig:
    """The switches of MixSKD; the defaults are the paper's.

    Args:
        preset: ``paper``; ``released_cifar`` or ``released_imagenet`` set other defaults, those of the released code.
        mix: ``mixup`` (the paper), or ``cutmix`` on images and maps alike.
        alpha: of Beta(alpha, alpha): 0.4 for CIFAR-100 and fine-grained sets, 0.2 for ImageNet.
        per_sample: one lam an image in place of one a step (mixup only: a box is drawn for the whole batch).
        derangement: never pair an image with itself.
        temperature: T of Eq. 10 and 12.
        scale_kl: multiply the divergences of Eq. 10 and 12 by T^2, as the released code does.
        beta: weight of L_feature (Eq. 7); 1 to 10 work, says the paper; 0 switches it off.
        gamma: weight of L_dis (Eq. 8).
        mu: weight of L_b_logit + L_cls_h + L_f_logit (Eq. 10 to 12).
        original_weight: of the originals' cross-entropy; 1 as released, 2 is the literal Eq. 5 in expectation.
        mix_cls: cross-entropy on the mixed images (Eq. 5).
        branch_logit: mutual distillation of the branches (Eq. 10).
        teacher_cls: cross-entropy of the self-teacher (Eq. 11); without it the self-teacher stays as initialised.
        teacher_logit: distillation of the self-teacher into the backbone (Eq. 12).
        discriminator: ``joint`` minimises Eq. 13 over everything, as printed; ``grl`` reverses the gradient into the
            features, a true adversarial game; ``d_only`` trains the discriminators alone; ``frozen`` leaves them as
            initialised; ``off``.
        two_logit: discriminators with two sigmoids in place of one, as released.
        teacher_stages: the maps (1-based) that the self-teacher sees; all if empty (Table 5, right).
        teacher_detach: keep Eq. 11's gradient out of branches and backbone.
        teacher_norm_act: batch norm and ReLU after the self-teacher's convolution.
        separate_bn: forward originals and mixes apart, each with its own batch statistics.
    """

    preset: str = "paper"
    mix: str = "mixup"
    alpha: float = 0.4
    per_sample: bool = False
    derangement: bool = False
    temperature: float = 3.0
    scale_kl: bool = True
    beta: float = 1.0
    gamma: float = 1.0
    mu: float = 1.0
    original_weight: float = 1.0
    mix_cls: bool = True
    branch_logit: bool = True
    teacher_cls: bool = True
    teacher_logit: bool = True
    discriminator: str = "joint"
    two_logit: bool = False
    teacher_stages: tuple[int, ...] = ()
    teacher_detach: bool = False
    teacher_norm_act: bool = False
    separate_bn: bool = False

    # gamma 0.5: the released loss is the mean over both halves of the batch, Eq. 8 the sum of their means.
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "released_cifar": {
            "mix_cls": False, "teacher_cls": False, "discriminator": "frozen", "two_logit": True, "gamma": 0.5,
        },
        "released_imagenet": {"alpha": 0.2, "discriminator": "frozen", "two_logit": True, "gamma": 0.5},
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha, temperature=self.temperature)
        check_not_negative(beta=self.beta, gamma=self.gamma, mu=self.mu, original_weight=self.original_weight)
        check_choice("mix", self.mix, MIXES)
        check_choice("discriminator", self.discriminator, DISCRIMINATOR_MODES)
        if self.per_sample and self.mix != "mixup":
            raise UserError(f"per_sample works with mix mixup only, not {self.mix}; leave one of them out")
        distils = self.mu > 0 and (self.branch_logit or self.teacher_cls or self.teacher_logit)
        discriminates = self.gamma > 0 and self.discriminator != "off"
        if not (self.original_weight > 0 or self.mix_cls or self.beta > 0 or discriminates or distils):
            raise UserError("every term of the loss is switched off; leave one on")


class MixSKD(Method):
    """L = L_cls_mixup + beta L_feature + gamma L_dis + mu (L_b_logit + L_cls_h + L_f_logit) (Eq. 13)."""

    Config = MixSKDConfig
    config: MixSKDConfig

    def build(self) -> None:
        config, backbone = self.config, self.backbone
        stages = len(backbone.stages)
        chosen = config.teacher_stages or tuple(range(1, stages + 1))
        if not set(chosen) <= set(range(1, stages + 1)):
            raise UserError(f"teacher_stages must lie in 1 to {stages} for this backbone, not {chosen}")
        self.branches = AuxiliaryBranches(backbone)
        self.self_teacher = SelfTeacher(
            backbone.feature_dim, backbone.num_classes, chosen, norm_act=config.teacher_norm_act
        ).requires_grad_(config.teacher_cls and config.mu > 0)
        self.discriminators: Discriminators | None = None
        if config.discriminator != "off" and config.gamma > 0:
            self.discriminators = Discriminators(stages, backbone.feature_dim, 2 if config.two_logit else 1)
            self.discriminators.requires_grad_(config.discriminator != "frozen")

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Mix:
        c = self.config
        return sample_mix(
            images, c.alpha, c.mix, per_sample=c.per_sample, derangement=c.derangement, generator=generator
        )

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        return self.branches.logits(self.backbone, images)

    def forward(self, images: Tensor, labels: Tensor, draws: Mix | None = None, **extra: Tensor) -> dict[str, Tensor]:
        c, mix = self.config, draws or self.draw(images)
        originals, mixed = self._both(images, mix(images))  # per head: F_k and M_k, B x C x H x W each
        with torch.autocast(images.device.type, enabled=False):
            interpolated = [mix(f) for f in originals]  # I_k of Eq. 6
            pooled_originals = [self.backbone.pooled(f) for f in originals]
            pooled_i = [mix.pooled(i, p) for i, p in zip(interpolated, pooled_originals, strict=True)]
            pooled_m = [self.backbone.pooled(f) for f in mixed]
            heads = [*self.branches.heads, self.backbone.head]
            z = [head(p) for head, p in zip(heads, pooled_originals, strict=True)]
            z_i = [mix(logits) for logits in z]  # Eq. 9
            z_m = [head(p) for head, p in zip(heads, pooled_m, strict=True)]

            terms: dict[str, tuple[float, Tensor]] = {}
            if c.original_weight > 0:  # Eq. 5, its summands over x_i and x_j
                terms["cls"] = (c.original_weight, total(cross_entropy(head, labels) for head in z))
            if c.mix_cls:  # Eq. 5, its summand over the mix
                terms["cls_mix"] = (1.0, total(mix.cross_entropy(head, labels) for head in z_m))
            if c.beta > 0:  # Eq. 7
                terms["feature"] = (c.beta, total(map(feature_distance, interpolated, mixed)))
            if self.discriminators is not None:  # Eq. 8
                terms["discriminator"] = (c.gamma, self._discriminate(self.discriminators, pooled_i, pooled_m))
            if c.mu > 0 and c.branch_logit:  # Eq. 10
                terms["branch_logit"] = (c.mu, total(map(self._mutual, z_i[:-1], z_m[:-1], z_m[:-1], z_i[:-1])))
            if c.mu > 0 and (c.teacher_cls or c.teacher_logit):
                h_i, h_m = self._teach(interpolated, pooled_i), self._teach(mixed, pooled_m)
                if c.teacher_cls:  # Eq. 11
                    terms["teacher_cls"] = (c.mu, mix.cross_entropy(h_i, labels) + mix.cross_entropy(h_m, labels))
                if c.teacher_logit:  # Eq. 12: the cross pairing
                    terms["teacher_logit"] = (c.mu, self._mutual(z_i[-1], h_m, z_m[-1], h_i))
            loss = total(weight * term for weight, term in terms.values())
        return {"loss": loss, "output": z[-1], **{name: term for name, (_, term) in terms.items()}}

    def _both(self, images: Tensor, mixes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The K aligned maps of the originals and of their mixes (Eq. 2), in one forward unless ``separate_bn``."""
        if self.config.separate_bn:
            originals, mixed = (self.branches(self.backbone.feature_maps(x)) for x in (images, mixes))
            return originals, mixed
        maps = self.branches(self.backbone.feature_maps(torch.cat([images, mixes])))
        halves = [f.chunk(2) for f in maps]
        return [f[0] for f in halves], [f[1] for f in halves]

    def _mutual(self, student: Tensor, teacher: Tensor, other_student: Tensor, other_teacher: Tensor) -> Tensor:
        T, scale = self.config.temperature, self.config.scale_kl
        return kl_divergence(student, teacher, T, scale=scale) + kl_divergence(
            other_student, other_teacher, T, scale=scale
        )

    def _teach(self, maps: list[Tensor], pooled: list[Tensor]) -> Tensor:
        if self.config.teacher_detach:
            maps, pooled = [f.detach() for f in maps], [p.detach() for p in pooled]
        return self.self_teacher(maps, pooled)

    def _discriminate(self, discriminators: Discriminators, pooled_i: list[Tensor], pooled_m: list[Tensor]) -> Tensor:
        into_features = {"grl": reverse_gradient, "d_only": torch.detach}.get(self.config.discriminator)
        if into_features:
            pooled_i, pooled_m = [into_features(p) for p in pooled_i], [into_features(p) for p in pooled_m]
        return total(map(discriminator_loss, discriminators(pooled_i), discriminators(pooled_m)))
