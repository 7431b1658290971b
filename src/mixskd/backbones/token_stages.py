"""Plain transformers (ViT, DeiT) as stages: four groups of blocks, with patches and positions in the first."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mixskd.backbones.cutting import STAGES
from mixskd.backbones.heads import as_weights
from mixskd.backbones.tokens import FeatureMap, TokenMap, to_map, to_tokens


class TokenStage(nn.Module):
    """Transformer blocks as a stage on maps. The first stage begins with ``embed``, from images to a map."""

    def __init__(self, blocks: Sequence[nn.Module], prefix: int, embed: nn.Module | None = None) -> None:
        super().__init__()
        self.embed, self.blocks, self.prefix = embed, nn.Sequential(*blocks), prefix

    def forward(self, x: FeatureMap) -> FeatureMap:
        state = x if self.embed is None else self.embed(x)
        grid = state.grid if isinstance(state, TokenMap) else state
        return to_map(self.blocks(to_tokens(state)), grid.shape[-2:], self.prefix)


class Embedding(nn.Module):
    """From images to a map of tokens with ``grid`` rows and columns, by ``embed`` on the ``part`` of a model."""

    def __init__(self, part: Any, embed: Callable[[Any, Tensor], Tensor], grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.part, self.embed, self.grid, self.prefix = part, embed, grid, prefix

    def forward(self, images: Tensor) -> FeatureMap:
        return to_map(self.embed(self.part, images), self.grid, self.prefix)


class PoolTokens(nn.Module):
    """Pooling of maps by ``pool``, on tokens ``B x N x C`` and the ``part`` of a model that it needs."""

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
    """``blocks`` in four groups of nearly equal size, the deeper ones larger; ``norm`` belongs to the last."""
    count, total = min(STAGES, len(blocks)), len(blocks)
    bounds = [total * k // count for k in range(count + 1)]
    groups = [list(blocks[low:high]) for low, high in pairwise(bounds)]
    groups[-1].append(norm)
    return [TokenStage(group, prefix, embed if k == 0 else None) for k, group in enumerate(groups)]
