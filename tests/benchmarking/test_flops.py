"""The arithmetic of a convolution, counted by hand: positions x weights, and the same for each of its two gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixskd.benchmarking.cost import flop_counter

LAYERS = {
    "plain": (nn.Conv2d(8, 6, 3, padding=1, bias=False), 5 * 5 * 8 * 6 * 9),
    "grouped": (nn.Conv2d(8, 6, 3, padding=1, groups=2, bias=False), 5 * 5 * 4 * 6 * 9),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), 5 * 5 * 1 * 8 * 9),
    "strided": (nn.Conv2d(8, 6, 3, stride=2, groups=2), 2 * 2 * 4 * 6 * 9),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2), 5 * 5 * 8 * 3 * 9),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("from_images", [True, False])
def test_a_convolution_and_its_gradients(name: str, from_images: bool) -> None:
    layer, products = LAYERS[name]
    x = torch.randn(2, 8, 5, 5, requires_grad=not from_images)  # no gradient is wanted by images
    with flop_counter() as counter:
        layer(x).sum().backward()
    passes = 2 if from_images else 3
    assert counter.get_total_flops() == passes * 2 * 2 * products
