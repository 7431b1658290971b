"""BYOT: Be Your Own Teacher (Zhang et al., ICCV 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.methods.branched import BRANCHED, BranchedMethod
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, kl_divergence, total, weighted_sum


@dataclass(frozen=True)
class BYOTConfig(Settings):
    """The paper gives no values; these are those of the code that is commonly used, at its batch of 128.

    Args:
        alpha: the share of the distillation; the rest is the cross-entropy with the labels.
        temperature: the temperature T.
        beta: the weight of the squared distance of pooled features, which is summed over channels and averaged over the
            batch; the code's 1e-6 weighs the sum over 128 images.
    """

    alpha: NotNegative = 0.1
    temperature: Positive = 3.0
    beta: NotNegative = 1.28e-4


class BYOT(BranchedMethod):
    """L = (1 - a) sum_m CE(z_m, y) + a sum_s KL_T(z_s <- stopgrad z_K) + b sum_s ||e_s - stopgrad e_K||^2, s < K.

    z_m are the logits of the K heads, e_m their pooled maps.
    """

    Config = BYOTConfig
    config: BYOTConfig
    about = replace(BRANCHED, summary="The last classifier teaches the classifiers of earlier stages.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, (_, pooled, logits) = self.config, self.outputs(images)
        terms = byot_loss(logits, pooled, labels, alpha=c.alpha, temperature=c.temperature, beta=c.beta, ce=self.ce)
        return {"output": logits[-1], **terms}


def byot_loss(
    logits: Sequence[Tensor], pooled: Sequence[Tensor], labels: Tensor,
    *, alpha: float, temperature: float, beta: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = (1 - alpha) ``cls`` + alpha ``logit`` + beta ``feature``, from K logits and features.

    They are ``B x N`` and ``B x C``; the last of each is the teacher. ``cls`` sums the cross-entropy of all heads,
    ``logit`` the divergences of the other heads from the last, ``feature`` their squared distances from it.
    """
    *students, teacher = logits
    target = full_precision(pooled[-1]).detach()
    divergences = (kl_divergence(student=z, teacher=teacher, temperature=temperature) for z in students)
    distances = ((full_precision(x) - target).square().sum(1).mean() for x in pooled[:-1])
    return weighted_sum(
        cls=(1 - alpha, total(ce(z, labels) for z in logits)),
        logit=(alpha, total(divergences, teacher)),
        feature=(beta, total(distances, teacher)),
    )
