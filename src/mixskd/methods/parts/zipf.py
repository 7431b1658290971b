"""Soft labels for the classes that are not the image's own, by their rank (Zipf's law)."""

import torch
from torch import Tensor

from mixskd.methods.parts.losses import as_probabilities, full_precision


def ranks(scores: Tensor) -> Tensor:
    """The place of each of ``scores`` (``B x N``) in its row, 1 for the highest; equals share the lowest number."""
    rising = scores.sort(dim=1).values
    return (scores.shape[1] + 1 - torch.searchsorted(rising, scores.contiguous(), right=True)).to(scores.dtype)


def zipf_weights(rank: Tensor, labels: Tensor, power: float = 1.0) -> Tensor:
    """1 / rank^power (``B x N``) over the classes other than ``labels``, with a sum of 1 and without gradient."""
    rank = rank.detach()
    weights = rank.pow(-power) * (1 - as_probabilities(labels, rank))
    return weights / weights.sum(1, keepdim=True)


def log_softmax_of_others(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-softmax of ``logits`` (``B x N``) over the classes other than ``labels`` (``B``); 0 at ``labels``."""
    z = full_precision(logits)
    own = as_probabilities(labels, z) > 0
    return z.masked_fill(own, -torch.inf).log_softmax(1).masked_fill(own, 0.0)


def non_target_divergence(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """KL(``weights`` || softmax of ``logits`` over the classes other than ``labels``), mean over the batch."""
    return (torch.xlogy(weights, weights) - weights * log_softmax_of_others(logits, labels)).sum(1).mean()
