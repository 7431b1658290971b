"""Losses that methods share, each with its equation, and the sums and types that they are made of: in fp32 or wider."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.tokens import FeatureMap, positions


def full_precision(x: Tensor) -> Tensor:
    """``x`` in fp32, or unchanged if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def total(terms: Iterable[Tensor], like: Tensor | None = None) -> Tensor:
    """The sum of ``terms``; a zero on the device of ``like`` if there are none."""
    terms = list(terms)
    return torch.stack(terms).sum() if terms else torch.zeros((), device=None if like is None else like.device)


def weighted_sum(**terms: tuple[float | Tensor, Tensor]) -> dict[str, Tensor]:
    """``loss``, the sum of weight * term over ``terms`` of pairs (weight, term), and each term without its weight."""
    loss = total(weight * term for weight, term in terms.values())
    return {"loss": loss, **{name: term for name, (_, term) in terms.items()}}


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy of ``logits`` (``B x N``) with class indices (``B``) or probabilities (``B x N``).

    ``smoothing`` spreads that share of each label over all N classes (Szegedy et al., 2016).
    """
    z = full_precision(logits)
    target = labels.to(z.dtype) if labels.is_floating_point() else labels
    return F.cross_entropy(z, target, label_smoothing=smoothing)


def log_likelihood(log_p: Tensor, labels: Tensor) -> Tensor:
    """sum_n y_n log p_n of each image (``B``), from log-probabilities (``B x N``) and labels of either kind."""
    if labels.is_floating_point():
        return (labels.to(log_p.dtype) * log_p).sum(1)
    return log_p.gather(1, labels[:, None]).squeeze(1)


def as_probabilities(labels: Tensor, like: Tensor) -> Tensor:
    """Labels of either kind as ``B x N`` probabilities of the shape and type of ``like``.

    ``F.one_hot`` would make the host wait for the device.
    """
    if labels.is_floating_point():
        return labels.to(like.dtype)
    return torch.zeros_like(like).scatter(1, labels[:, None], 1.0)


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float, *, scale: bool = True) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of two ``B x N`` logits (Hinton et al., 2015).

    The teacher is a constant: no gradient reaches it. ``scale=False`` leaves out the factor T^2.
    """
    log_p = F.log_softmax(full_precision(student) / temperature, dim=1)
    log_q = F.log_softmax(full_precision(teacher.detach()) / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return divergence * temperature**2 if scale else divergence


def feature_distance(a: FeatureMap, b: FeatureMap) -> Tensor:
    """Mean squared difference of two ``B x C x H x W`` maps, one summand of MixSKD Eq. 7. Both sides get gradients.

    A class token counts as one more position.
    """
    return mean_square(full_precision(positions(a)) - full_precision(positions(b)))


def relative_distance(a: FeatureMap, b: FeatureMap) -> Tensor:
    """:func:`feature_distance` divided by the mean square of both maps, so that a common scale does not change it.

    The denominator gets gradients too. A constant denominator would still pull the maps towards smaller values.
    """
    x, y = full_precision(positions(a)), full_precision(positions(b))
    energy = (mean_square(x) + mean_square(y)) / 2
    return mean_square(x - y) / energy.clamp(min=1e-12)


def mean_square(x: Tensor) -> Tensor:
    """The mean of x^2. ``F.mse_loss`` would compute and fill one gradient for each of its two inputs."""
    return x.square().sum() / x.numel()


def discriminator_loss(interpolated: Tensor, mixed: Tensor) -> Tensor:
    """-log D(I) - log(1 - D(M)), one summand of MixSKD Eq. 8, from the logits of D: ``B x 1`` or ``B x 2``.

    Two logits are the released code's form: independent sigmoids with the targets [1, 0] and [0, 1], averaged.
    """
    interpolated, mixed = full_precision(interpolated), full_precision(mixed)
    first = torch.arange(interpolated.shape[1], device=interpolated.device) == 0
    target = first.to(interpolated.dtype).expand_as(interpolated)
    bce = F.binary_cross_entropy_with_logits
    return bce(interpolated, target) + bce(mixed, 1 - target)


def reverse_gradient(x: Tensor) -> Tensor:
    """``x`` in the forward pass, its gradient times -1 in the backward pass (Ganin et al., 2016)."""
    return 2 * x.detach() - x
