"""How an image becomes a tensor. It is stored with the model, so that the model gets the same images everywhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mixskd.config.data import SMALL

CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OLD_NAMES = {"centre": "crop", "stretch": "squash"}  # of version 0.1


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop or pad, and (x / 255 - mean) / std.

    Args:
        image_size: height and width of the network's images, in pixels.
        mean: of the channels of images in [0, 1], one number for each channel.
        std: of the same channels.
        resize: ``crop`` resizes the short side to 256/224 of ``image_size`` and crops the centre, as the paper does;
            ``pad`` resizes the long side to ``image_size`` and fills up with ``mean``; ``squash`` resizes height and
            width. Chosen by ``image_size`` if not given: ``squash`` up to 64 px, else ``crop``.
        range: the values that become 0 and 1, in place of 0 and 255; images are then fp32 tensors from the file on.
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = ""
    range: tuple[float, ...] | None = None

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def usual(self) -> bool:
        """Whether Pillow holds the images: grey or RGB, of 8 bits. Others are tensors ``C x H x W``."""
        return self.channels in (1, 3) and self.range is None

    @property
    def rgb(self) -> bool:
        """Whether the images are RGB of 8 bits."""
        return self.usual and self.channels == 3

    def __post_init__(self) -> None:
        usual = "squash" if self.image_size <= SMALL else "crop"
        object.__setattr__(self, "resize", OLD_NAMES.get(self.resize, self.resize) or usual)

    @property
    def resized(self) -> int:
        """The short side before the crop, in pixels; for ``pad`` and ``squash`` that is ``image_size``."""
        return round(self.image_size * 256 / 224) if self.resize == "crop" else self.image_size

    @property
    def enough(self) -> int:
        """The least height and width to which a JPEG is decoded: a crop of a ninth of the area keeps all its pixels.

        The images of the evaluation change by at most 2.5 of 255 grey levels on average: 0.3 if the decoder's scale
        divides height and width, else a part of a pixel is added at the edge.
        """
        return 3 * self.image_size

    @property
    def fill(self) -> list[float]:
        """The value of the padding in each channel: from 0 to 255, or from 0 to 1 with a range."""
        return [round(255 * x) for x in self.mean] if self.range is None else list(self.mean)

    def keeps(self, images: np.ndarray) -> bool:
        """Whether ``images`` (``N x H x W x C``) are neither resized nor cropped."""
        return self.resize != "crop" and images.shape[1:3] == (self.image_size, self.image_size)

    def crop(self) -> Callable[[Any], Any]:
        """From an image (of Pillow, or a tensor) to the one that the network sees in evaluation."""
        if self.resize != "crop":
            return self.whole(self.image_size)
        return v2.Compose([v2.Resize(self.resized, antialias=True), v2.CenterCrop(self.image_size)])

    def whole(self, size: int) -> Callable[[Any], Any]:
        """From an image to one of ``size`` pixels; for ``crop`` this is its short side, and nothing is cut off."""
        if self.resize == "pad":
            return Letterbox(size, tuple(self.fill))
        return v2.Resize((size, size) if self.resize == "squash" else size, antialias=True)

    def part(self, size: int, scale: tuple[float, ...], ratio: tuple[float, ...]) -> Callable[[Any], Any]:
        """From an image to a random part of it, ``size x size``, by torchvision's RandomResizedCrop.

        ``pad`` and ``squash`` take it from the square that they make of the image, whose proportions the network knows.
        """
        cropped = v2.RandomResizedCrop(size, scale=scale, ratio=ratio)
        if self.resize == "pad":
            return v2.Compose([Letterbox(self.enough, tuple(self.fill), enlarge=False), cropped])
        return SquashedPart(cropped) if self.resize == "squash" else cropped

    def units(self, values: np.ndarray) -> Tensor:
        """``values`` (``H x W x C``) as ``C x H x W``: as they are in uint8, or in fp32 with ``range`` at 0 and 1."""
        tensor = torch.from_numpy(np.array(values.transpose(2, 0, 1), dtype=self.dtype, order="C"))
        if self.range is None:
            return tensor
        low, high = self.range
        return tensor.sub_(low).div_(high - low)

    @property
    def dtype(self) -> type:
        """The type of the images' values before the normalisation."""
        return np.uint8 if self.range is None else np.float32

    def transform(self) -> v2.Transform:
        """From an image to the normalised tensor ``C x H x W`` of the evaluation."""
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(self.mean), list(self.std))]
        return v2.Compose([self.crop(), *to_tensor])


def image_tensor(image: Image.Image | Tensor) -> Tensor:
    """An image as ``C x H x W``."""
    return image if isinstance(image, Tensor) else F.pil_to_tensor(image)


def for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """``values`` of red, green and blue for other channels: their mean for grey, else repeated in turn."""
    if channels == 1 and len(values) == 3:
        return (sum(values) / 3,)
    return tuple(values[i % len(values)] for i in range(channels))


@dataclass(frozen=True)
class Letterbox:
    """The whole image in a square of ``size`` pixels, the rest filled; without ``enlarge`` of its long side at most."""

    size: int
    fill: tuple[float, ...]
    enlarge: bool = True

    def __call__(self, image: Any) -> Any:
        height, width = F.get_size(image)
        long = max(height, width)
        size = self.size if self.enlarge else min(self.size, long)
        height, width = (max(1, round(side * size / long)) for side in (height, width))
        left, top = (size - width) // 2, (size - height) // 2
        image = F.resize(image, [height, width], antialias=True)
        return F.pad(image, [left, top, size - width - left, size - height - top], fill=list(self.fill))


@dataclass(frozen=True)
class SquashedPart:
    """``crop`` on the image that was squashed to a square; it is not enlarged before, so that no detail is lost."""

    crop: v2.RandomResizedCrop

    def __call__(self, image: Any) -> Any:
        height, width = F.get_size(image)
        ratio = [bound * width / height for bound in self.crop.ratio]
        return v2.RandomResizedCrop(self.crop.size, scale=self.crop.scale, ratio=ratio)(image)
