"""The weight gradient for small maps against its sum written out, and within a network."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn

from mixskd.training import convolution
from mixskd.training.convolution import Limits, SmallMapConvolutions, weight_gradient


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((4, 4), (3, 3), (1, 1), (1, 1)), ((5, 4), (3, 2), (2, 1), (1, 0)), ((3, 3), (1, 1), (2, 2), (0, 0))],
)
def test_against_the_sum_over_positions(size: tuple, kernel: tuple, stride: tuple, padding: tuple) -> None:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 3, *size))
    padded = np.pad(images, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    gradient = generator.standard_normal((2, 4, height, width))
    expected = np.zeros((4, 3, *kernel))
    for b, o, i, j in np.ndindex(gradient.shape):
        top, left = i * stride[0], j * stride[1]
        expected[o] += gradient[b, o, i, j] * padded[b, :, top : top + kernel[0], left : left + kernel[1]]
    got = weight_gradient(*map(torch.from_numpy, (gradient, images)), torch.Size(expected.shape), stride, padding)
    assert np.allclose(got.numpy(), expected, atol=1e-12)


def gradients(net: nn.Module, images: torch.Tensor, *, fast: bool) -> list[torch.Tensor]:
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16), SmallMapConvolutions(Limits()) if fast else contextlib.nullcontext():
        loss = net(images).float().square().mean()
    loss.backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def gradients_in_float64(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    wide = copy.deepcopy(net).double()
    wide.zero_grad()
    wide(images.double()).square().mean().backward()
    return [p.grad for p in wide.parameters() if p.grad is not None]


def test_in_a_network_it_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object) -> torch.Tensor:
        calls.append(args)
        return weight_gradient(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(convolution, "weight_gradient", counted)
    large, strided = nn.Conv2d(3, 128, 3, 1, 1, bias=False), nn.Conv2d(128, 8, 3, 2, 1, bias=False)
    small, others = nn.Conv2d(8, 8, 3, 2, 1, bias=False), (nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=2))
    net = nn.Sequential(large, nn.ReLU(), strided, small, *others)
    images = torch.randn(4, 3, 16, 16)
    library, ours = (gradients(net, images, fast=fast) for fast in (False, True))
    assert len(calls) == 2, "the one with a stride, and the one to 4 x 4 without bias"
    exact = [g.float() for g in gradients_in_float64(net, images)]
    for one, other, truth in zip(library, ours, exact, strict=True):
        assert (other - truth).norm() <= 5e-2 * truth.norm()
        assert (other - truth).abs().max() <= 2 * (one - truth).abs().max() + 1e-6


def test_limits_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(convolution, "weight_gradient", lambda *a: calls.append(a) or weight_gradient(*a))
    net, images = nn.Conv2d(8, 8, 3, 1, 1, bias=False), torch.randn(2, 8, 4, 4)
    for limits, expected in ((Limits(16, 0, 0), 1), (Limits(15, 256, 1), 1), (Limits(64, 0, 0), 2)):
        with torch.autocast("cpu", torch.bfloat16), SmallMapConvolutions(limits):
            loss = net(images).float().square().mean()
        loss.backward()
        assert len(calls) == expected
