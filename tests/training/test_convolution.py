"""Convolutions as matrix products against their sums written out, and within a network."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn

from mixskd.training import convolution
from mixskd.training.convolution import (
    USUAL,
    Limits,
    SmallMapConvolutions,
    SmallMaps,
    image_gradient,
    output,
    weight_gradient,
)

EVERYWHERE = SmallMaps(*[Limits(4096, 0, 4096, 0)] * 3)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((4, 4), (3, 3), (1, 1), (1, 1)),
        ((5, 4), (3, 2), (2, 1), (1, 0)),
        ((3, 3), (1, 1), (2, 2), (0, 0)),
        ((6, 7), (3, 3), (2, 2), (1, 1)),
        ((5, 6), (2, 3), (3, 2), (0, 2)),  # a stride above the kernel, a padding that whole windows lie in
    ],
)
def test_against_the_sums_over_positions(size: tuple, kernel: tuple, stride: tuple, padding: tuple) -> None:
    generator = np.random.default_rng(0)
    images, weight = generator.standard_normal((2, 3, *size)), generator.standard_normal((4, 3, *kernel))
    padded = np.pad(images, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    gradient = generator.standard_normal((2, 4, height, width))
    maps, to_weight, to_padded = np.zeros(gradient.shape), np.zeros(weight.shape), np.zeros(padded.shape)
    for b, o, i, j in np.ndindex(gradient.shape):
        rows, columns = (slice(at * s, at * s + k) for at, s, k in zip((i, j), stride, kernel, strict=True))
        maps[b, o, i, j] = (padded[b, :, rows, columns] * weight[o]).sum()
        to_weight[o] += gradient[b, o, i, j] * padded[b, :, rows, columns]
        to_padded[b, :, rows, columns] += gradient[b, o, i, j] * weight[o]
    to_images = to_padded[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    g, x, w = map(torch.from_numpy, (gradient, images, weight))
    for got, expected in (
        (output(x, w, stride, padding), maps),
        (image_gradient(g, w, x.shape, stride, padding), to_images),
        (weight_gradient(g, x, w.shape, stride, padding), to_weight),
    ):
        assert got.shape == expected.shape
        assert np.allclose(got.numpy(), expected, atol=1e-12)


def gradients(
    net: nn.Module, images: torch.Tensor, products: SmallMaps | None, *, bf16: bool = True
) -> list[torch.Tensor]:
    net.zero_grad()
    active = SmallMapConvolutions(products) if products else contextlib.nullcontext()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), active:
        loss = net(images).float().square().mean()
    loss.backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def gradients_in_float64(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    wide = copy.deepcopy(net).double()
    wide.zero_grad()
    wide(images.double()).square().mean().backward()
    return [p.grad for p in wide.parameters() if p.grad is not None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The products that were computed, by name."""
    found: list[str] = []
    for part in (output, image_gradient, weight_gradient):

        def counted(*args: object, part=part) -> torch.Tensor:  # type: ignore[no-untyped-def]
            found.append(part.__name__)
            return part(*args)

        monkeypatch.setattr(convolution, part.__name__, counted)
    return found


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("products", "computed"),
    [
        (USUAL["bf16"], {"weight_gradient": 2}),  # the one with a stride, and the one to 4 x 4 without bias
        # The first convolution is given images, which need no gradient.
        (EVERYWHERE, {"output": 3, "image_gradient": 2, "weight_gradient": 3}),
    ],
    ids=["usual", "everywhere"],
)
def test_in_a_network_it_changes_nothing_but_rounding(
    products: SmallMaps, computed: dict[str, int], bf16: bool, calls: list[str]
) -> None:
    torch.manual_seed(0)
    large, strided = nn.Conv2d(3, 128, 3, 1, 1, bias=False), nn.Conv2d(128, 8, 3, 2, 1, bias=False)
    small, others = nn.Conv2d(8, 8, 3, 2, 1, bias=False), (nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=2))
    net = nn.Sequential(large, nn.ReLU(), strided, small, *others)
    images = torch.randn(4, 3, 16, 16)
    library, ours = (gradients(net, images, kind, bf16=bf16) for kind in (None, products))
    assert {name: calls.count(name) for name in set(calls)} == computed
    exact = [g.float() for g in gradients_in_float64(net, images)]
    bound = 5e-2 if bf16 else 1e-5
    for one, other, truth in zip(library, ours, exact, strict=True):
        assert (other - truth).norm() <= bound * truth.norm()
        assert (other - truth).abs().max() <= 2 * (one - truth).abs().max() + 1e-6


@pytest.mark.parametrize(
    ("limits", "taken"),
    [
        (Limits(16), True),
        (Limits(15), False),
        (Limits(15, 0, 256, 1), False),  # it has no stride
        (Limits(64, 8), True),
        (Limits(64, 9), False),
    ],
)
@pytest.mark.parametrize("part", ["output", "to_images", "to_weight"])
def test_limits_say_where(part: str, limits: Limits, taken: bool, calls: list[str]) -> None:
    net, images = nn.Conv2d(8, 8, 3, 1, 1, bias=False), torch.randn(2, 8, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), SmallMapConvolutions(SmallMaps(**{part: limits})):
        loss = net(images).float().square().mean()
    loss.backward()
    name = {"output": "output", "to_images": "image_gradient", "to_weight": "weight_gradient"}[part]
    assert calls == [name] * taken


def test_a_stride_has_its_own_limits(calls: list[str]) -> None:
    net, images = nn.Conv2d(8, 8, 3, 2, 1, bias=False), torch.randn(2, 8, 8, 8)
    for limits, taken in ((Limits(0, 0, 16, 8), 1), (Limits(0, 0, 15, 8), 0), (Limits(0, 0, 16, 9), 0)):
        with SmallMapConvolutions(SmallMaps(output=limits)), torch.no_grad():
            net(images)
        assert calls == ["output"] * taken
        calls.clear()


def test_a_kernel_of_one_position_stays_with_the_library(calls: list[str]) -> None:
    net, images = nn.Conv2d(8, 8, 1, bias=False), torch.randn(2, 8, 4, 4, requires_grad=True)
    with SmallMapConvolutions(EVERYWHERE):
        net(images).square().mean().backward()
    assert calls == ["weight_gradient"], "whose sum over positions is what is slow"
