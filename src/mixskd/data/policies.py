"""Augmentation policies on top of crop and flip: on single images in the workers, or on a batch on the device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError, unknown


def autoaugment(image_size: int, found_on: str | None = None) -> v2.Transform:
    """AutoAugment (CVPR 2019): the policy ``found_on`` a data set; cifar10 up to 64 px, else imagenet, if not given."""
    return v2.AutoAugment(v2.AutoAugmentPolicy(found_on or ("cifar10" if image_size <= 64 else "imagenet")))


def randaugment(image_size: int) -> v2.Transform:
    """RandAugment (CVPRW 2020): two operations, at magnitude 14 of 30 up to 64 px, 9 above."""
    return v2.RandAugment(num_ops=2, magnitude=14 if image_size <= 64 else 9)


def augmix(image_size: int) -> v2.Transform:
    """AugMix (ICLR 2020) as its authors' code: width 3, depth 1 to 3, severity 3, no colour operations."""
    return v2.AugMix(severity=3, mixture_width=3, all_ops=False)


def trivialaugment(image_size: int) -> v2.Transform:
    """TrivialAugment (ICCV 2021), the wide space: one operation at a uniform strength."""
    return v2.TrivialAugmentWide()


IMAGE_POLICIES: dict[str, Callable[[int], v2.Transform]] = {
    "autoaugment": autoaugment,
    **{f"autoaugment_{name}": partial(autoaugment, found_on=name) for name in ("cifar10", "imagenet", "svhn")},
    "randaugment": randaugment,
    "augmix": augmix,
    "trivialaugment": trivialaugment,
}


def cutout(images: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """Cutout (2017): one square hole of a quarter of the side, uniform centre, clipped, filled with 0.

    That is 8 px of 32, as the authors set it for CIFAR-100.
    """
    height, width = images.shape[2:]
    length = max(height // 4, 1)
    top = (u[0] * height).floor() - length // 2
    left = (u[1] * width).floor() - length // 2
    return images.masked_fill(inside(images, top, left, top + length, left + length), 0.0)


TRIES = 10


def random_erasing(images: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """Random Erasing (AAAI 2020): with p = 0.5 a box of 2 to 40 % of the area and aspect 0.3 to 3.33.

    The first of ten drawn boxes that fits strictly inside is filled, as in the authors' code, with the data set's mean
    in [0, 1].
    """
    height, width = images.shape[2:]
    area, aspect, y, x = u[1:].unflatten(0, (4, TRIES))
    area, aspect = height * width * (0.02 + 0.38 * area), 0.3 + (1 / 0.3 - 0.3) * aspect
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.to(torch.int8).argmax(0, keepdim=True)
    tall, wide, y, x = (v.gather(0, first)[0] for v in (tall, wide, y, x))
    top, left = (y * (height - tall + 1)).floor(), (x * (width - wide + 1)).floor()
    chosen = inside(images, top, left, top + tall, left + wide)
    chosen &= ((u[0] < 0.5) & fits.any(0))[:, None, None, None]
    return torch.where(chosen, mean.reshape(1, -1, 1, 1).to(images.dtype), images)


def inside(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Which pixels of each image (``B x 1 x H x W``) lie in its box, given in pixels (``B`` each)."""
    rows = torch.arange(images.shape[2], device=images.device)[None, :]
    columns = torch.arange(images.shape[3], device=images.device)[None, :]
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


class BatchPolicy(NamedTuple):
    """``apply(images, u, mean)``: normalised images by ``draws`` uniform numbers each, ``u`` being ``draws x B``."""

    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    draws: int


BATCH_POLICIES = {"cutout": BatchPolicy(cutout, 2), "random_erasing": BatchPolicy(random_erasing, 1 + 4 * TRIES)}

POLICIES = ("none", *IMAGE_POLICIES, *BATCH_POLICIES)


def check_policy(
    name: str, jitter: Sequence[float] = (), views: str | None = None, wanted: Preprocess | None = None
) -> None:
    """Raises UserError for a ``name`` that is no policy, and for what the images that are ``wanted`` cannot be given: a
    policy, a colour ``jitter``, or a policy that a method uses for its ``views``.
    """
    if name not in POLICIES:
        raise unknown("augmentation policy", name, POLICIES)
    if wanted is None or wanted.rgb:
        return
    if wanted.usual:
        if any(jitter[2:]):
            raise UserError("grey images have no saturation and no hue; give --data.color-jitter two numbers")
        return
    images = f"images of {wanted.channels} channels" if wanted.range is None else "images with data.range"
    if name in IMAGE_POLICIES:
        raise UserError(f"data.augment {name} is for grey or RGB images of 8 bits, not for {images}; leave it out")
    if any(jitter):
        raise UserError(f"data.color_jitter is for grey or RGB images of 8 bits, not for {images}; leave it out")
    if views is not None:
        raise UserError(f"this method's views by {views} are for grey or RGB images of 8 bits, not for {images}")
