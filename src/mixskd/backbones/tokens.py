"""Feature maps ``B x C x H x W``; those of a token net are a grid of tokens, with class tokens beside it."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class TokenMap(NamedTuple):
    """A stage map with tokens that have no position, such as the class token of a plain transformer.

    ``grid``: ``B x C x H x W``, the tokens of the patches. ``prefix``: ``B x C x P``, tokens without a position.
    """

    grid: Tensor
    prefix: Tensor


FeatureMap: TypeAlias = Tensor | TokenMap


def has_channels_last(x: Tensor) -> bool:
    """Whether a map ``B x C x H x W`` is stored with its channels last. ``vmap`` knows strides, not memory formats."""
    return x.stride(1) == 1


def spatial(feature_map: FeatureMap) -> Tensor:
    """The part of a map with positions, ``B x C x H x W``: the map itself, or the grid of a :class:`TokenMap`."""
    return feature_map.grid if isinstance(feature_map, TokenMap) else feature_map


def positions(feature_map: FeatureMap) -> Tensor:
    """All tokens of a map, those without a position first: ``B x C x (P + H W)``, or ``B x C x H x W`` without any."""
    if isinstance(feature_map, TokenMap):
        return torch.cat([feature_map.prefix, feature_map.grid.flatten(2)], dim=2)
    return feature_map


def average(feature_map: FeatureMap) -> Tensor:
    """The mean over the positions of a map, ``B x C``, in at least fp32."""
    x = spatial(feature_map)
    dtype = torch.promote_types(x.dtype, torch.float32)
    if has_channels_last(x):  # so that the gradient has the layout of the map
        return x.permute(0, 2, 3, 1).mean((1, 2), dtype=dtype)
    return x.mean((2, 3), dtype=dtype)


def each(function: Callable[[Tensor], Tensor], feature_map: FeatureMap) -> FeatureMap:
    """``function`` of a map, or of both parts of a :class:`TokenMap`."""
    if isinstance(feature_map, TokenMap):
        return TokenMap(function(feature_map.grid), function(feature_map.prefix))
    return function(feature_map)


def halves(feature_map: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
    """The maps of the first and the second half of a batch. ``chunk`` gathers their gradients in one operation."""
    if isinstance(feature_map, TokenMap):
        first, second = (TokenMap(*both) for both in zip(*(x.chunk(2) for x in feature_map), strict=True))
        return first, second
    one, other = feature_map.chunk(2)
    return one, other


def to_tokens(feature_map: FeatureMap) -> Tensor:
    """A map as a sequence ``B x N x C``, the tokens without a position first."""
    return positions(feature_map).flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: tuple[int, int] | torch.Size, prefix: int) -> FeatureMap:
    """A sequence ``B x N x C`` whose first ``prefix`` tokens have no position as a map with ``grid`` rows, columns."""
    x = tokens.transpose(1, 2)
    feature_map = x[:, :, prefix:].unflatten(2, tuple(grid))
    return TokenMap(feature_map, x[:, :, :prefix]) if prefix else feature_map
