"""Pure loss functions, each with its equation. All reduce over the batch by the mean and compute in at least fp32."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import FeatureMap, positions


def full_precision(x: Tensor) -> Tensor:
    """``x`` in fp32, or unchanged if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy of ``logits`` (``B x N``) with class indices ``labels`` (``B``).

    ``smoothing`` spreads that share of each label over all N classes (Szegedy et al., 2016).
    """
    return F.cross_entropy(full_precision(logits), labels, label_smoothing=smoothing)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """``labels`` (``B``) as vectors of the shape and type of ``like`` (``B x N``); torch's own waits for the host."""
    return torch.zeros_like(like).scatter(1, labels[:, None], 1.0)


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float, *, scale: bool = True) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of two ``B x N`` logits (Hinton et al., 2015).

    The teacher is a constant: no gradient reaches it. ``scale=False`` leaves the factor T^2 out.
    """
    log_p = F.log_softmax(full_precision(student) / temperature, dim=1)
    log_q = F.log_softmax(full_precision(teacher.detach()) / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return divergence * temperature**2 if scale else divergence


def feature_distance(a: FeatureMap, b: FeatureMap) -> Tensor:
    """Mean squared difference of two ``B x C x H x W`` maps, the summand of MixSKD Eq. 7. Both sides get gradients.

    A class token beside a grid counts as one more position.
    """
    return mean_square(full_precision(positions(a)) - full_precision(positions(b)))


def relative_distance(a: FeatureMap, b: FeatureMap) -> Tensor:
    """:func:`feature_distance` over the mean square of both maps: 0 for equal maps, and the same at any common scale.

    The denominator gets gradients too. As a constant it would leave the pull to smaller maps as it was.
    """
    x, y = full_precision(positions(a)), full_precision(positions(b))
    energy = (mean_square(x) + mean_square(y)) / 2
    return mean_square(x - y) / energy.clamp(min=1e-12)


def mean_square(x: Tensor) -> Tensor:
    """The mean of x^2. Torch's own ``mse_loss`` fills and computes a gradient for each of its two sides."""
    return x.square().sum() / x.numel()


def discriminator_loss(interpolated: Tensor, mixed: Tensor) -> Tensor:
    """-log D(I) - log(1 - D(M)), the summand of MixSKD Eq. 8, from the logits of D: ``B x 1``, or ``B x 2``.

    Two logits are the released code's form: independent sigmoids with the targets [1, 0] and [0, 1], averaged.
    """
    first = torch.arange(interpolated.shape[1], device=interpolated.device) == 0
    target = first.to(interpolated.dtype).expand_as(interpolated)
    bce = F.binary_cross_entropy_with_logits
    return bce(interpolated, target) + bce(mixed, 1 - target)


def reverse_gradient(x: Tensor) -> Tensor:
    """``x`` forward, its gradient times -1 backward (Ganin et al., 2016)."""
    return 2 * x.detach() - x


def total(terms: Iterable[Tensor], like: Tensor | None = None) -> Tensor:
    """The sum of ``terms``; for none a 0 on the device of ``like``, which a sum that may be empty needs."""
    terms = list(terms)
    return torch.stack(terms).sum() if terms else torch.zeros((), device=None if like is None else like.device)
