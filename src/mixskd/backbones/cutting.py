"""Cut a model that is a chain of modules into stages."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

STAGES = 4


def units(model: nn.Module, ends: Sequence[str], stops: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (path, child) of ``model`` up to a path in ``stops``. A child that holds a stage's end is opened."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if path in stops:
            return
        if any(end.startswith(f"{path}.") for end in ends):
            yield from units(child, ends, stops, f"{path}.")
        else:
            yield path, child


def grouped(chain: Sequence[tuple[str, nn.Module]], ends: Sequence[str]) -> list[dict[str, nn.Module]]:
    """The modules of ``chain`` by path, in groups that end at ``ends``; the last group takes the rest of the chain.

    Raises ValueError if an end is not in the chain.
    """
    stages: list[dict[str, nn.Module]] = [{} for _ in ends]
    passed = 0
    for path, module in chain:
        stages[min(passed, len(ends) - 1)][path] = module
        passed += path in ends
    if passed < len(ends):
        raise ValueError("not every feature map is the output of a child module")
    return stages


def nested(modules: dict[str, nn.Module]) -> nn.Sequential:
    """Nested Sequentials of ``modules`` by dotted path, so that their parameters keep these paths as keys."""
    tree: OrderedDict[str, Any] = OrderedDict()
    for path, module in modules.items():
        first, _, rest = path.partition(".")
        if rest:
            tree.setdefault(first, {})[rest] = module
        else:
            tree[first] = module
    return nn.Sequential(OrderedDict((k, nested(v) if isinstance(v, dict) else v) for k, v in tree.items()))


def ends_by_size(chain: Sequence[tuple[str, nn.Module]], size: int, axis: int, channels: int = 3) -> list[str]:
    """Paths of the last module of each of the deepest four map sizes, for images of ``size`` px.

    ``axis`` is the maps' axis of height. Raises ValueError if a module's output is not a map.
    """
    device = next(p for _, module in chain for p in module.parameters()).device
    x, was = torch.zeros(1, channels, size, size, device=device), [module.training for _, module in chain]
    heights: dict[str, int] = {}
    try:
        with torch.no_grad():
            for path, module in chain:
                x = module.eval()(x)
                if not isinstance(x, torch.Tensor) or x.ndim != 4:
                    raise ValueError(f"{path} does not return a map")
                heights[path] = x.shape[axis]
    finally:
        for training, (_, module) in zip(was, chain, strict=True):
            module.train(training)
    ends = [path for path, after in pairwise(heights) if heights[after] != heights[path]]
    return [*ends, path][-STAGES:]
