"""Common corruptions at five severities, in the manner of Hendrycks and Dietterich (2019).

The strengths are the published ones: those of CIFAR-C for images below 64 px, else those of ImageNet-C. The arithmetic
is our own, so that numbers are comparable between models that this suite scored, not with the published image files.
``frost`` diverges most: its ice is generated, where the published one is photographed (see
:mod:`mixskd.evaluation.corruptions.weather`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mixskd.evaluation.corruptions.kernels import Draws, blur, smooth, streaks, zoomed
from mixskd.evaluation.corruptions.weather import frost, snow

SMALL = 64
"""Pixels from which an image gets the strengths of ImageNet-C."""


def gaussian_noise(x: Tensor, c: float, draws: Draws) -> Tensor:
    return x + c * draws.normal(x.shape[1:])


def shot_noise(x: Tensor, c: float, draws: Draws) -> Tensor:
    rates = x.numpy() * c
    return draws.take(lambda g, i: g.poisson(rates[i])) / c


def impulse_noise(x: Tensor, c: float, draws: Draws) -> Tensor:
    u = draws.uniform(x.shape[1:], 0, 1)
    return torch.where(u < c / 2, 0.0, torch.where(u < c, 1.0, x))


def defocus_blur(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    radius, soft = c
    reach = math.ceil(radius + 2 * soft)
    axis = torch.arange(-reach, reach + 1.0)
    distance = (axis[:, None] ** 2 + axis**2).sqrt()
    return blur(x, torch.sigmoid((radius - distance) / (soft / 2)).expand(len(x), -1, -1))


def motion_blur(x: Tensor, c: tuple[int, float], draws: Draws) -> Tensor:
    length, sigma = c
    return blur(x, streaks(length, sigma, draws.uniform((), -math.pi / 4, math.pi / 4)))


def glass_blur(x: Tensor, c: tuple[float, int, int], draws: Draws) -> Tensor:
    """``c``: deviation of the blur before and after, reach in pixels of a shuffle between, and how often it is done.

    The published corruption swaps pixels one after the other; here all take the value of a random neighbour at once.
    """
    sigma, reach, times = c
    height, width = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = smooth(x, sigma)
    for _ in range(times):
        shift = draws.uniform((2, height, width), -reach, reach).floor().long()
        row, column = (rows + shift[:, 0]).clamp(0, height - 1), (columns + shift[:, 1]).clamp(0, width - 1)
        places = (row * width + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        x = x.flatten(2).gather(2, places).unflatten(2, (height, width))
    return smooth(x, sigma)


def zoom_blur(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    end, step = c
    factors = np.arange(1, end, step)
    total = x.clone()
    for factor in factors:
        total += zoomed(x, float(factor))
    return total / (len(factors) + 1)


def fog(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    amount, decay = c
    size = max(x.shape[2:])
    haze, strength, cells = torch.zeros(len(x), 1, *x.shape[2:]), 1.0, 2
    while cells <= size:  # octaves of noise, each finer and weaker
        noise = draws.uniform((1, cells, cells))
        haze += strength * F.interpolate(noise, tuple(x.shape[2:]), mode="bilinear", align_corners=True)
        strength, cells = strength / decay, cells * 2
    haze -= haze.amin((1, 2, 3), keepdim=True)
    haze /= haze.amax((1, 2, 3), keepdim=True).clamp(min=1e-8)
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * haze) * brightest / (brightest + amount)


def brightness(x: Tensor, c: float, draws: Draws) -> Tensor:
    # The value of HSV is the largest channel; hue and saturation stay if all channels are scaled alike.
    value = x.amax(1, keepdim=True)
    raised = (value + c).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp(min=1e-8), raised)


def contrast(x: Tensor, c: float, draws: Draws) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * c + mean


def elastic_transform(x: Tensor, c: tuple[float, float, float], draws: Draws) -> Tensor:
    """``c``: displacement, its smoothness and the affine jitter, as shares of the image's size."""
    height, width = x.shape[2:]
    jitter = 3 * c[2] * draws.uniform((2, 3))
    jitter[:, :, 2] /= 3
    grid = F.affine_grid(torch.eye(2, 3) + jitter, list(x.shape), align_corners=False)
    if c[0] > 0:
        shift = c[0] * smooth(draws.uniform((2, height, width)), c[1] * min(height, width))
        grid = grid + 2 * shift.permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def pixelate(x: Tensor, c: float, draws: Draws) -> Tensor:
    return by_pil(x, lambda image: _resized(image, c))


def jpeg_compression(x: Tensor, c: int, draws: Draws) -> Tensor:
    def compress(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=c)
        return Image.open(buffer).convert("RGB")

    return by_pil(x, compress)


def _resized(image: Image.Image, share: float) -> Image.Image:
    size = image.size
    small = image.resize((max(int(size[0] * share), 1), max(int(size[1] * share), 1)), Image.Resampling.BOX)
    return small.resize(size, Image.Resampling.BOX)


def by_pil(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """``change`` on each image as 8-bit RGB."""
    arrays = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    changed = [np.asarray(change(Image.fromarray(array))) for array in arrays]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).float() / 255


Corruption = Callable[[Tensor, Any, Draws], Tensor]
CORRUPTIONS: dict[str, tuple[Corruption, Sequence[Any], Sequence[Any]]] = {
    # name: the function, its strengths for images below 64 px, and for larger ones
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "motion_blur": (
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "fog": (
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    # At the end, since a corruption's place decides its draws.
    "glass_blur": (
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
}  # fmt: skip


def corrupt(x: Tensor, name: str, severity: int, seed: int, indices: Sequence[int]) -> Tensor:
    """Pixels ``B x 3 x H x W`` in 0 to 1 on the CPU, corrupted by ``name`` at ``severity`` 1 to 5, again in 0 to 1.

    ``indices`` are the images' places in their split: they and ``seed`` decide every draw.
    """
    function, small, large = CORRUPTIONS[name]
    strength = (small if min(x.shape[2:]) < SMALL else large)[severity - 1]
    draws = Draws(seed, indices, (list(CORRUPTIONS).index(name), severity))
    return function(x, strength, draws).clamp(0, 1)
