"""The labels of a split: ``N`` class indices, ``N x C`` probabilities, or ``N x C`` of 0 and 1 for several an image."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixskd.errors import UserError


def are_several(labels: np.ndarray) -> bool:
    """Whether an image may have several labels or none: ``N x C`` of 0 and 1 (uint8)."""
    return labels.ndim == 2 and labels.dtype == np.uint8


def are_soft(labels: np.ndarray) -> bool:
    """Whether each image has probabilities of the classes as its label: ``N x C`` (float32)."""
    return labels.ndim == 2 and not are_several(labels)


def hardened(labels: np.ndarray) -> np.ndarray:
    """Class indices (``N``) in place of probabilities; other labels as they are."""
    return labels.argmax(1) if are_soft(labels) else labels


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """The images of each class (``C`` numbers); of probabilities their sum."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=classes)
    return labels.sum(0, dtype=np.int64 if are_several(labels) else np.float64)


def strata(labels: np.ndarray, least: int = 1) -> np.ndarray:
    """A class for each image (``N`` indices), by which images are divided and drawn.

    It is the likeliest class, or of several labels the rarest one: C for an image without any. Where images have
    several, a class with fewer than ``least`` images of its own joins the largest one.
    """
    if not are_several(labels):
        return hardened(labels)
    rarity = np.where(labels > 0, labels.sum(0, dtype=np.int64), len(labels) + 1)
    chosen = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    sizes = np.bincount(chosen)
    return np.where(sizes[chosen] < least, sizes.argmax(), chosen)


def as_tensor(labels: np.ndarray, device: torch.device) -> Tensor:
    """The labels as a loss takes them: int64, or fp32 for ``N x C``."""
    tensor = torch.from_numpy(labels).to(device)
    return tensor if tensor.ndim == 1 else tensor.float()


def check_labels(labels: np.ndarray, classes: Sequence[str], name: str) -> None:
    """Raises UserError if ``labels`` of the split ``name`` do not fit the ``classes``."""
    if labels.ndim == 1:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            raise UserError(
                f"{name} labels run from {low} to {high}, but there are {len(classes)} classes: "
                f"they must be from 0 to {len(classes) - 1}"
            )
        return
    if labels.shape[1] != len(classes):
        raise UserError(f"{name} labels have {labels.shape[1]} columns, but there are {len(classes)} classes")
    if are_several(labels) and labels.max() > 1:
        raise UserError(f"{name} labels with a column for each class must be 0 or 1; the largest is {labels.max()}")
    if are_soft(labels) and not (labels.min() >= 0 and abs(labels.sum(1) - 1).max() <= 0.02):
        raise UserError(
            f"{name} labels of floating-point numbers must be probabilities: 0 or above, with a sum of 1 for each "
            "image; for several labels an image give 0 and 1 as integers"
        )
