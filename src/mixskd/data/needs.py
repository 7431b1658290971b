"""What a method asks of the data, and the batch that it then gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mixskd.errors import UserError


@dataclass(frozen=True)
class DataNeeds:
    """Declared by a method, supplied as keyword arguments of ``forward`` beside images and labels: by the loader, and
    ``progress`` by the loop.

    Args:
        views: independently augmented copies of each image; those after the first come as ``views``
            (``B x (views - 1) x C x H x W``).
        view_policy: an augmentation policy that makes the views after the first from the first one's crop and flip.
        partners: further images of the same class for each image, as ``partners`` (``B x partners x C x H x W``).
        distinct_partners: never the image itself, and none twice, where the class is large enough.
        partners_from: ``class``; or ``previous``: the image at the same place of the batch before. The batch before the
            first of an epoch is the last of the epoch before; the very first step of a run has its own images.
        slots: each image's place in the whole batch, of all processes and parts together, as ``slots`` (``B``).
        indices: each image's place in the training set, as ``indices`` (``B``).
        progress: the share of the epochs that this one completes, from 1 / E to 1, as ``progress`` (a scalar).
    """

    views: int = 1
    view_policy: str | None = None
    partners: int = 0
    distinct_partners: bool = False
    partners_from: str = "class"
    slots: bool = False
    indices: bool = False
    progress: bool = False


def take(extra: Mapping[str, Tensor], name: str) -> Tensor:
    """What ``forward`` was given as ``name``. Raises UserError if the caller left it out."""
    if name not in extra:
        raise UserError(f"this method needs {name}: call method(images, labels, {name}=...), see mixskd.data.needs")
    return extra[name]


class Batch(NamedTuple):
    """``images`` ``B x C x H x W`` (fp32, normalised, channels last), ``labels`` ``B``, and what else was asked for.

    With ``prepare``, the images and labels are what such a batch is made from, so that a recorded step can hold this
    work too; ``labels`` has ``B`` entries in any case.
    """

    images: Tensor
    labels: Tensor
    extra: dict[str, Tensor]
    prepare: Callable[[Batch], Batch] | None = None
