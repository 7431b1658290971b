"""What a method needs from the data beside images and labels."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mixskd.errors import UserError


@dataclass(frozen=True)
class DataNeeds:
    """The keyword arguments of a method's ``forward`` beside images and labels. The loader supplies them, and the
    training loop ``progress``.

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
    """``extra[name]``. Raises UserError if the caller of ``forward`` left it out."""
    if name not in extra:
        raise UserError(f"this method needs {name}: call method(images, labels, {name}=...), see mixskd.data.needs")
    return extra[name]
