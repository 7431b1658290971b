"""Cutting a model that is a chain of modules: which modules there are, in order, and where a stage ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

STAGES = 4


def units(model: nn.Module, ends: Sequence[str], stops: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The children of ``model`` in order with their paths, opened where a stage ends within; up to one of ``stops``."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if path in stops:
            return
        if any(end.startswith(f"{path}.") for end in ends):
            yield from units(child, ends, stops, f"{path}.")
        else:
            yield path, child


def grouped(chain: Sequence[tuple[str, nn.Module]], ends: Sequence[str]) -> list[dict[str, nn.Module]]:
    """The modules of ``chain`` by path, a group for each of ``ends``; what follows the last belongs to its group.

    Raises ValueError if an end is no module of the chain.
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
    """``modules``, by dotted path, in nested Sequentials, so that their parameters have the paths as keys."""
    tree: OrderedDict[str, Any] = OrderedDict()
    for path, module in modules.items():
        first, _, rest = path.partition(".")
        if rest:
            tree.setdefault(first, {})[rest] = module
        else:
            tree[first] = module
    return nn.Sequential(OrderedDict((k, nested(v) if isinstance(v, dict) else v) for k, v in tree.items()))


def ends_by_size(chain: Sequence[tuple[str, nn.Module]], size: int, axis: int) -> list[str]:
    """The last module of each of the deepest four map sizes, for images of ``size`` px; ``axis`` is the maps' height.

    Raises ValueError if a module's output is no map.
    """
    heights: dict[str, int] = {}
    hooks = []
    for path, module in chain:

        def note(_: nn.Module, __: Any, output: Any, path: str = path) -> None:
            if not isinstance(output, torch.Tensor) or output.ndim != 4:
                raise ValueError(f"{path} gives no map")
            heights[path] = output.shape[axis]

        hooks.append(module.register_forward_hook(note))
    was = [module.training for _, module in chain]
    try:
        device = next(p for _, module in chain for p in module.parameters()).device
        x = torch.zeros(1, 3, size, size, device=device)
        with torch.no_grad():
            for _, module in chain:
                x = module.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
        for training, (_, module) in zip(was, chain, strict=True):
            module.train(training)
    paths = list(heights)
    ends = [path for path, after in pairwise(paths) if heights[after] != heights[path]]
    return [*ends, paths[-1]][-STAGES:]
