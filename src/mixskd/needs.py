"""What a method asks of the data, and the batch that it then gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class DataNeeds:
    """Declared by a method, supplied by the loader as keyword arguments of ``forward`` beside images and labels.

    Args:
        views: independently augmented copies of each image; those after the first come as ``views``
            (``B x (views - 1) x C x H x W``).
        view_policy: an augmentation policy for the views after the first, in place of the data set's own.
        partners: further images of the same class for each image, as ``partners`` (``B x partners x C x H x W``).
        distinct_partners: never the image itself, and none twice, where the class is large enough.
        indices: each image's place in the training set, as ``indices`` (``B``).
        progress: the share of the epochs that this one completes, from 1 / E to 1, as ``progress`` (a scalar).
    """

    views: int = 1
    view_policy: str | None = None
    partners: int = 0
    distinct_partners: bool = False
    indices: bool = False
    progress: bool = False


class Batch(NamedTuple):
    """``images`` ``B x C x H x W`` (fp32, normalised, channels last), ``labels`` ``B``, and what else was asked for."""

    images: Tensor
    labels: Tensor
    extra: dict[str, Tensor]
