"""Plain transformers (ViT, DeiT) as stages: four groups of blocks, with patches and positions in the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mixskd.backbones.staged import as_weights
from mixskd.backbones.tokens import FeatureMap, TokenMap, to_map, to_tokens

STAGES = 4


class TokenStage(nn.Module):
    """Blocks on a sequence ``B x N x C``, for maps. The first stage begins with ``embed``, from images to a map."""

    def __init__(self, blocks: Sequence[nn.Module], prefix: int, embed: nn.Module | None = None) -> None:
        super().__init__()
        self.embed, self.blocks, self.prefix = embed, nn.Sequential(*blocks), prefix

    def forward(self, x: FeatureMap) -> FeatureMap:
        state = x if self.embed is None else self.embed(x)
        grid = state.grid if isinstance(state, TokenMap) else state
        return to_map(self.blocks(to_tokens(state)), grid.shape[-2:], self.prefix)


class Embedding(nn.Module):
    """Images to a map of tokens, by ``embed`` of a model's parts, whose grid is ``grid``."""

    def __init__(self, part: Any, embed: Callable[[Any, Tensor], Tensor], grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.part, self.embed, self.grid, self.prefix = part, embed, grid, prefix

    def forward(self, images: Tensor) -> FeatureMap:
        return to_map(self.embed(self.part, images), self.grid, self.prefix)


class PoolTokens(nn.Module):
    """Pooling of tokens ``B x N x C`` (class token, average, attention) by a model's parts, for maps; at least fp32."""

    def __init__(self, part: nn.Module, pool: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.part, self.pool = part, pool

    def forward(self, feature_map: FeatureMap) -> Tensor:
        return self.pool(self.part, as_weights(to_tokens(feature_map), self.part))


def class_token(_: Any, tokens: Tensor) -> Tensor:
    """The first of tokens ``B x N x C``."""
    return tokens[:, 0]


def two_tokens(_: Any, tokens: Tensor) -> Tensor:
    """The first two of tokens ``B x N x C`` (DeiT's class and distillation token), ``B x 2C``."""
    return tokens[:, :2].flatten(1)


def token_stages(blocks: Sequence[nn.Module], prefix: int, embed: nn.Module, norm: nn.Module) -> list[nn.Module]:
    """``blocks`` in four groups as even as can be, the deeper ones larger; ``norm`` belongs to the last."""
    count, total = min(STAGES, len(blocks)), len(blocks)
    bounds = [total * k // count for k in range(count + 1)]
    groups = [list(blocks[low:high]) for low, high in pairwise(bounds)]
    groups[-1].append(norm)
    return [TokenStage(group, prefix, embed if k == 0 else None) for k, group in enumerate(groups)]
