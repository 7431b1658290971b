"""Thresholds of probabilities: for the highest F1, for an accuracy, and for a share of the images."""

import math

import torch
from torch import Tensor

from mixskd.errors import UserError

USUAL = 0.5  # threshold of a class for which none was fitted


def best_threshold(p: Tensor, labels: Tensor) -> float:
    """The threshold with the highest F1 of probabilities and labels (``N``); the highest of several, and 0.5 if no
    image has the label.

    It is halfway between two probabilities.
    """
    ordered, order = p.double().sort(descending=True, stable=True)
    hits = labels[order].cumsum(0)
    if not len(hits) or not hits[-1]:
        return USUAL
    predicted = torch.arange(1, len(hits) + 1, device=p.device)
    return _below(ordered, int((2 * hits / (predicted + hits[-1]) * _ends(ordered)).argmax()))


def threshold_for_accuracy(confidence: Tensor, right: Tensor, target: float) -> float:
    """The lowest threshold at which at least ``target`` per cent of the accepted images are ``right`` (``N`` each).

    It is halfway between two confidences, and 0 if all images are accepted. Raises UserError if no threshold
    reaches the target.
    """
    ordered, order = confidence.double().sort(descending=True, stable=True)
    hits, numbers, ends = right[order].long().cumsum(0), torch.arange(1, len(right) + 1), _ends(ordered)
    reached = (100 * hits >= target * numbers) & ends
    if not reached.any():
        raise UserError(
            f"no threshold reaches an accuracy of {target:g} % on val; the highest that one reaches is "
            f"{100 * (hits / numbers)[ends].max():.2f} %, so give a lower --target-accuracy, or --coverage"
        )
    return _below(ordered, int(reached.nonzero()[-1]), all_of_them=0.0)


def threshold_for_coverage(confidence: Tensor, coverage: float) -> float:
    """The highest threshold that accepts at least ``coverage`` per cent of the images, between two confidences."""
    ordered = confidence.double().sort(descending=True).values
    least = max(math.ceil(coverage * len(ordered) / 100 - 1e-9), 1)
    last = _ends(ordered).nonzero()[:, 0]
    return _below(ordered, int(last[last >= least - 1][0]), all_of_them=0.0)


def _ends(ordered: Tensor) -> Tensor:
    """Whether the next of the decreasing values is smaller; a threshold cannot separate equal values."""
    return torch.cat([ordered[1:] < ordered[:-1], torch.ones_like(ordered[:1], dtype=torch.bool)])


def _below(ordered: Tensor, last: int, all_of_them: float | None = None) -> float:
    """A threshold that accepts the decreasing values up to index ``last``; for the last one ``all_of_them`` if given,
    else half of it.
    """
    if last + 1 == len(ordered):
        return ordered[last].item() / 2 if all_of_them is None else all_of_them
    accepted, refused = ordered[last].item(), ordered[last + 1].item()
    middle = (accepted + refused) / 2
    return middle if middle > refused else accepted  # adjacent floats have no middle
