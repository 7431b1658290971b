"""Common corruptions at five severities, in the manner of Hendrycks and Dietterich (2019).

The strengths are the published ones: those of CIFAR-C for images below 64 px, else those of ImageNet-C. The arithmetic
is our own, so that numbers are comparable between models that this suite scored, not with the published image files.
``glass_blur``, ``snow`` and ``frost`` are left out: the last needs photographs of ice.
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

SMALL = 64
"""Pixels from which an image gets the strengths of ImageNet-C."""


class Draws:
    """Random numbers that depend on the seed, the image's index and the corruption, not on the batch."""

    def __init__(self, seed: int, indices: Sequence[int], key: tuple[int, int]) -> None:
        self.generators = [np.random.default_rng([seed, int(index), *key]) for index in indices]

    def take(self, draw: Callable[[np.random.Generator, int], Any]) -> Tensor:
        """``draw(generator, position)`` of each image, stacked."""
        values = [np.asarray(draw(g, i), dtype=np.float32) for i, g in enumerate(self.generators)]
        return torch.from_numpy(np.stack(values))

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self.take(lambda g, i: g.standard_normal(shape, dtype=np.float32))

    def uniform(self, shape: Sequence[int], low: float = -1.0, high: float = 1.0) -> Tensor:
        return self.take(lambda g, i: g.uniform(low, high, shape))


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


def motion_blur(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    radius, sigma = c
    angle = draws.uniform((), -math.pi / 4, math.pi / 4)[:, None, None]
    axis = torch.arange(-radius, radius + 1.0)
    along = axis * angle.cos() + axis[:, None] * angle.sin()
    across = axis[:, None] * angle.cos() - axis * angle.sin()
    kernel = (-(along**2) / (2 * sigma**2)).exp() * (1 - across.abs()).clamp(min=0) * (along >= 0)
    return blur(x, kernel)


def zoom_blur(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    end, step = c
    factors = np.arange(1, end, step)
    total = x.clone()
    for factor in factors:
        matrix = torch.eye(2, 3).repeat(len(x), 1, 1) / float(factor)
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        total += F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
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


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image with its own kernel (``B x k x k``), which is made to sum to 1; borders are repeated."""
    batch, channels, height, width = x.shape
    reach = kernels.shape[-1] // 2
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    padded = F.pad(x, [reach] * 4, mode="replicate").flatten(0, 1)[None]
    return F.conv2d(padded, kernels.repeat_interleave(channels, 0)[:, None], groups=batch * channels)[0].unflatten(
        0, (batch, channels)
    )


def smooth(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over height and width."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3))


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
}


def corrupt(x: Tensor, name: str, severity: int, seed: int, indices: Sequence[int]) -> Tensor:
    """Pixels ``B x 3 x H x W`` in 0 to 1 on the CPU, corrupted by ``name`` at ``severity`` 1 to 5, again in 0 to 1.

    ``indices`` are the images' places in their split: they and ``seed`` decide every draw.
    """
    function, small, large = CORRUPTIONS[name]
    strength = (small if min(x.shape[2:]) < SMALL else large)[severity - 1]
    draws = Draws(seed, indices, (list(CORRUPTIONS).index(name), severity))
    return function(x, strength, draws).clamp(0, 1)
