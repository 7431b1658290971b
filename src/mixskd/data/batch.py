"""A training batch, and the one that the step itself makes from smaller tensors."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """``images`` ``B x C x H x W`` (fp32, normalised, channels last), ``labels`` ``B``, and tensors by name in
    ``extra``, which are those that :class:`mixskd.data.needs.DataNeeds` asks for.
    """

    images: Tensor
    labels: Tensor
    extra: dict[str, Tensor]


class DeferredBatch(NamedTuple):
    """The tensors that a batch is made from: ``make(indices, source, size)`` is the batch.

    The step calls ``make``, so that a CUDA graph records the loading too. It changes nothing and waits for nothing.

    ``indices`` are places in the training set, one row per image of the batch (``B`` or ``B x (1 + partners)``).
    ``source`` are the random numbers of the augmentation, or the bytes that workers sent. ``size`` are height and width
    in pixels.
    """

    indices: Tensor
    source: Tensor
    make: Callable[[Tensor, Tensor, int], Batch]
    size: int
