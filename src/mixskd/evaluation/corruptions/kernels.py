"""What corruptions are made of: draws that do not depend on the batch, blurs and zooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


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


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image with its own kernel (``B x k x k``), which is made to sum to 1; borders are repeated."""
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
    """The middle of each image, larger by ``factor``."""
    matrix = torch.eye(2, 3).repeat(len(x), 1, 1) / factor
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over height and width."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3))
