"""Fifteen common corruptions at five severities, in the manner of Hendrycks and Dietterich (2019).

The strengths are the published ones (strengths.yaml). The arithmetic is our own, so compare the numbers between models,
not with those on the published image files, which the suite reads too. Each function takes pixels ``B x 3 x H x W`` in
0 to 1, a strength and :class:`Draws`.
"""

import io
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

LARGE = 64  # pixels from which an image gets the strengths of ImageNet-C
ICE = (0.86, 0.94, 1.0)  # the colour of frost, slightly blue


class Draws:
    """Random numbers that depend on the seed, the index of the image and the corruption, but not on the batch."""

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


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image convolved with its own kernel (``B x k x k``, scaled to sum 1); borders are repeated."""
    batch, channels, height, width = x.shape
    reach = kernels.shape[-1] // 2
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    padded = F.pad(x, [reach] * 4, mode="replicate").flatten(0, 1)[None]
    return F.conv2d(padded, kernels.repeat_interleave(channels, 0)[:, None], groups=batch * channels)[0].unflatten(
        0, (batch, channels)
    )


def streaks(length: int, sigma: float, angle: Tensor) -> Tensor:
    """Kernels ``B x k x k`` of a half Gaussian along a line from the centre, in the direction ``angle`` (``B``)."""
    turn = angle[:, None, None]
    axis = torch.arange(-length, length + 1.0)
    along = axis * turn.cos() + axis[:, None] * turn.sin()
    across = axis[:, None] * turn.cos() - axis * turn.sin()
    return (-(along**2) / (2 * sigma**2)).exp() * (1 - across.abs()).clamp(min=0) * (along >= 0)


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The centre of each image, enlarged by ``factor``."""
    matrix = torch.eye(2, 3).repeat(len(x), 1, 1) / factor
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over height and width."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3))


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
    """``c``: deviation of the blur before and after, reach in pixels of the shuffle between, number of shuffles.

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


def snow(x: Tensor, c: tuple[float, float, float, float, int, float, float], draws: Draws) -> Tensor:
    """Whitened images with flakes: thresholded noise, zoomed, blurred along a random steep direction, added twice.

    ``c``: mean, deviation, zoom and threshold of the noise, length and deviation of the streaks, share of the image.
    """
    mean, deviation, zoom, threshold, length, sigma, share = c
    flakes = zoomed(mean + deviation * draws.normal((1, *x.shape[2:])), zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angle = draws.uniform((), math.pi / 4, 3 * math.pi / 4)
    flakes = blur(flakes, streaks(length, sigma, angle))
    red, green, blue = x.unbind(1)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    white = torch.maximum(x, 1.5 * grey + 0.5)
    return share * x + (1 - share) * white + flakes + flakes.flip(2, 3)


def frost(x: Tensor, c: tuple[float, float], draws: Draws) -> Tensor:
    """Images under a layer of ice, whose shares are ``c``.

    It diverges from the published corruption, which lays photographs of frozen panes over the image. Here the ice is
    generated: ridges of smooth noise at several scales, like the needles of frost, over a haze that varies slowly. The
    shares of image and ice are the published ones, but the errors are not those on the published files.
    """
    own, ice = c
    return own * x + ice * frozen_pane(x.shape[2], x.shape[3], draws) * torch.tensor(ICE).reshape(3, 1, 1)


def frozen_pane(height: int, width: int, draws: Draws) -> Tensor:
    """How white the ice is, 0 to 1, of each image: ``B x 1 x height x width``."""
    size, cells = max(height, width), 4
    haze = smooth_noise(3, height, width, draws)
    needles, strength = torch.zeros_like(haze), 0.0
    while cells <= size:  # a ridge is where noise changes its sign; finer ones are weaker
        weight = 4 / cells**0.5
        needles += weight * (1 - smooth_noise(cells, height, width, draws).abs()).clamp(min=0) ** 4
        strength += weight
        cells *= 2
    return (0.35 * (haze + 1) / 2 + 0.9 * needles / max(strength, 1e-8)).clamp(0, 1)


def smooth_noise(cells: int, height: int, width: int, draws: Draws) -> Tensor:
    """Smooth noise of -1 to 1 with ``cells`` random values to a side."""
    return F.interpolate(draws.uniform((1, cells, cells)), (height, width), mode="bilinear", align_corners=True)


FUNCTIONS: dict[str, Callable[[Tensor, Any, Draws], Tensor]] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, motion_blur, zoom_blur, fog, brightness, contrast,
        elastic_transform, pixelate, jpeg_compression, glass_blur, snow, frost,
    )
}  # fmt: skip
STRENGTHS: dict[str, dict[str, list[Any]]] = yaml.safe_load((files(__package__) / "strengths.yaml").read_text("utf-8"))


def corrupt(x: Tensor, name: str, severity: int, seed: int, indices: Sequence[int]) -> Tensor:
    """Pixels ``B x 3 x H x W`` in 0 to 1 on the CPU, corrupted by ``name`` at ``severity`` 1 to 5, again in 0 to 1.

    ``indices`` are the images' places in their split: they and ``seed`` decide every random number.
    """
    strength = STRENGTHS[name]["small" if min(x.shape[2:]) < LARGE else "large"][severity - 1]
    draws = Draws(seed, indices, (list(STRENGTHS).index(name), severity))
    return FUNCTIONS[name](x, strength, draws).clamp(0, 1)
