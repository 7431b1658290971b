"""How an image becomes a tensor. It is stored with the model, so that the model gets the same images everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import v2

from mixskd.config.data import SMALL

CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZES = ("stretch", "centre")


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop, and (x / 255 - mean) / std.

    Args:
        image_size: height and width of the network's images, in pixels.
        mean: of the three channels of images in [0, 1].
        std: of the same channels.
        resize: ``stretch`` resizes the whole image; ``centre`` resizes the short side to 256/224 of ``image_size`` and
            crops the centre, as the paper does; chosen by ``image_size`` if not given (``stretch`` up to 64 px).
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = ""

    def __post_init__(self) -> None:
        if not self.resize:
            object.__setattr__(self, "resize", "stretch" if self.image_size <= SMALL else "centre")

    @property
    def resized(self) -> int:
        """The short side before the crop, in pixels."""
        return self.image_size if self.resize == "stretch" else round(self.image_size * 256 / 224)

    @property
    def enough(self) -> int:
        """The least height and width to which a JPEG is decoded: a crop of a ninth of the area keeps all its pixels.

        The images of the evaluation change by at most 2.5 of 255 grey levels on average: 0.3 if the decoder's scale
        divides height and width, else a part of a pixel is added at the edge.
        """
        return 3 * self.image_size

    def keeps(self, images: np.ndarray) -> bool:
        """Whether ``images`` (``N x H x W x 3``) are neither resized nor cropped."""
        return self.resize == "stretch" and images.shape[1:3] == (self.image_size, self.image_size)

    def crop(self) -> v2.Transform:
        """From a PIL image to the PIL image that the network sees in evaluation."""
        size = self.image_size
        if self.resize == "stretch":
            return v2.Resize((size, size), antialias=True)
        return v2.Compose([v2.Resize(self.resized, antialias=True), v2.CenterCrop(size)])

    def transform(self) -> v2.Transform:
        """From a PIL image to the normalised tensor ``3 x H x W`` of the evaluation."""
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(self.mean), list(self.std))]
        return v2.Compose([self.crop(), *to_tensor])
