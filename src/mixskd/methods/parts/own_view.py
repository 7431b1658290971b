"""Resize and renormalise images for a teacher that was trained with another size or normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OwnView(nn.Module):
    """``network`` on images that were normalised and sized for another one.

    ``given`` and ``wanted`` are (mean, std) of the channels of images in [0, 1]: those with which the images
    ``B x C x H x W`` come, and the network's own. ``size`` is the network's own height and width in pixels; images of
    another size are resized, bilinearly with antialiasing.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        given: tuple[Sequence[float], Sequence[float]],
        wanted: tuple[Sequence[float], Sequence[float]],
        size: int,
    ) -> None:
        super().__init__()
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(x, dtype=torch.float64).reshape(-1, 1, 1) for x in pair] for pair in (given, wanted)
        )
        self.network, self.size = network, size
        self.register_buffer("scale", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())

    def forward(self, images: Tensor) -> Tensor:
        x = images * self.scale + self.shift
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.network(x)
        return logits
