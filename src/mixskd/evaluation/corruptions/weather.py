"""The corruptions snow and frost, whose textures are generated here."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.evaluation.corruptions.kernels import Draws, blur, streaks, zoomed

ICE = (0.86, 0.94, 1.0)
"""The colour of frost, slightly blue."""


def snow(x: Tensor, c: tuple[float, float, float, float, int, float, float], draws: Draws) -> Tensor:
    """Whitened images with flakes: thresholded noise, zoomed, blurred along a random steep direction, seen twice.

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
    haze = _noise(3, height, width, draws)
    needles, strength = torch.zeros_like(haze), 0.0
    while cells <= size:  # a ridge is where noise changes its sign; finer ones are weaker
        weight = 4 / cells**0.5
        needles += weight * (1 - _noise(cells, height, width, draws).abs()).clamp(min=0) ** 4
        strength += weight
        cells *= 2
    return (0.35 * (haze + 1) / 2 + 0.9 * needles / max(strength, 1e-8)).clamp(0, 1)


def _noise(cells: int, height: int, width: int, draws: Draws) -> Tensor:
    """Smooth noise of -1 to 1 with so many cells to a side."""
    return F.interpolate(draws.uniform((1, cells, cells)), (height, width), mode="bilinear", align_corners=True)
