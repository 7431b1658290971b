"""Gradients keep the layout of the maps, and each map gets its own in one piece; else a step is full of copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixskd.backbones.tokens import TokenMap, average, halves
from mixskd.methods.parts.losses import feature_distance, mean_square, relative_distance
from mixskd.methods.parts.mixing import Mix, sample_mix
from tests.conftest import make_toy
from tests.methods.support import make
from tests.training.test_graphs import Launches

PERMUTATION = torch.tensor([2, 0, 3, 1])
MIX = Mix(torch.tensor(0.3), PERMUTATION)
BOX = Mix(torch.tensor(0.75), PERMUTATION, torch.tensor([0.0, 2.0, 0.0, 3.0]), (4, 6))


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    seen: list[Tensor] = []
    y = leaf * 1
    y.register_hook(seen.append)
    function(y).square().sum().backward()
    return seen[0]


OPERATIONS = {
    "average": average,
    "mixup": MIX,
    "cutmix": BOX,
    "halves": lambda x: torch.add(*halves(x)),
    "distance": lambda x: feature_distance(MIX(x), x),
    "relative distance": lambda x: relative_distance(MIX(x), x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradient_keeps_memory_layout(name: str) -> None:
    contiguous = torch.randn(4, 5, 4, 6, dtype=torch.float64)
    last = contiguous.to(memory_format=torch.channels_last)
    expected, got = (gradient(OPERATIONS[name], x) for x in (contiguous, last))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert expected.is_contiguous()
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(OPERATIONS[name](last), OPERATIONS[name](contiguous), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("within", [None, 3])
def test_gradient_of_a_mix_is_read_through_the_inverse_permutation(within: int | None) -> None:
    """That of plain indexing adds to zeros, which sorts the indices on a GPU."""
    x = torch.randn(5, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    whole = sample_mix(x, 1.0, within=within)
    for mix in (whole,) if within is None else (whole.first(3), whole.rest(3)):
        part, weights = x[: len(mix.permutation)], torch.randn(len(mix.permutation), 2, 3, 3, dtype=torch.float64)
        with Launches() as launches:
            (got,) = torch.autograd.grad((mix(part) * weights).sum(), part)
        expected = mix.lam * weights + ((1 - mix.lam) * weights)[mix.permutation.argsort()]
        assert torch.allclose(got, expected)
        assert launches.names.count("index") == 2
        assert not {"index_put", "index_put_", "new_zeros", "sort", "argsort"} & set(launches.names)
    assert torch.autograd.gradgradcheck(whole, x)


def test_draw_of_a_box_takes_no_product_over_a_tensor() -> None:
    """CUDA's kernel for it is compiled when a process first calls it."""
    with Launches() as launches:
        sample_mix(torch.zeros(2, 3, 4, 4), 1.0, "cutmix")
    assert "floor" in launches.names
    assert "prod" not in launches.names


def test_halves_of_token_map() -> None:
    tokens = TokenMap(torch.arange(24.0).reshape(4, 2, 3, 1), torch.arange(8.0).reshape(4, 2, 1))
    first, second = halves(tokens)
    assert isinstance(first, TokenMap)
    assert torch.equal(torch.cat([first.grid, second.grid]), tokens.grid)
    assert torch.equal(torch.cat([first.prefix, second.prefix]), tokens.prefix)


def test_mean_square_and_gradient() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    value = mean_square(x)
    value.backward()
    assert value.item() == pytest.approx(sum(float(v) ** 2 for v in x.detach().flatten()) / 12, rel=1e-12)
    assert torch.allclose(x.grad, x.detach() * 2 / 12, rtol=1e-12)


def test_mixskd_map_gradients_keep_memory_layout() -> None:
    method = make("mixskd", make_toy().float()).to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    maps = method._maps

    def watched(images: Tensor) -> list[Tensor]:
        found = [f * 1 for f in maps(images)]
        for f in found:
            f.register_hook(seen.append)
        return found

    method._maps = watched  # type: ignore[method-assign]
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    method(images, torch.arange(4))["loss"].backward()
    assert len(seen) == 3
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in seen)
