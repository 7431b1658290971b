"""The mixes of images among the random numbers of a step, for whoever shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from mixskd.methods.base import Method
from mixskd.methods.manifold_mixup import ManifoldMixup
from mixskd.methods.parts.mixing import Mix


def image_mixes(method: Method, draws: Any) -> list[Mix]:
    """The mixes among ``draws`` of ``method`` that it applies to images, and not to feature maps alone."""
    if isinstance(method, ManifoldMixup) and int(draws[1]) != 0:
        return []
    return list(_found(draws))


def _found(draws: Any) -> Iterator[Mix]:
    if isinstance(draws, Mix):
        yield draws
    elif isinstance(draws, list | tuple):
        for part in draws:
            yield from _found(part)


def mixed_names(mix: Mix, names: list[str]) -> list[str]:
    """The two names of each mixed image with their shares, a line each."""
    weights: Tensor = mix.lam.expand(len(names))
    others = [names[i] for i in mix.permutation.tolist()]
    return [f"{w:.2f} {a}\n{1 - w:.2f} {b}" for w, a, b in zip(weights.tolist(), names, others, strict=True)]
