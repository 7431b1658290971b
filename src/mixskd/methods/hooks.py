"""What the training loop calls beside ``forward``, for methods, detectors and segmentation networks alike."""

from typing import Any, ClassVar

import torch
from torch import Tensor


class Hooks:
    """Base class of what the loop trains; the hooks do nothing here.

    State that a hook changes must be a registered buffer or parameter, changed in place, so that checkpoints hold it.
    """

    # The method that trains the classifier for the option ``teacher``; None for methods without this option.
    taught_by: ClassVar[str | None] = None

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """The random numbers of one step, as a tuple of tensors on the images' device, so that ``forward`` is pure.

        None where ``forward`` needs none, or where modules of a library draw them from the generator that the step
        seeds.
        """
        return None

    def after_update(self) -> None:
        """Called after each update of the weights, as a part of the step: without reading a tensor on the host."""

    def end_epoch(self) -> None:
        """Called at the end of each epoch, before its scores are computed."""
