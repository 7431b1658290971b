"""A step recorded once as a CUDA graph and replayed, so that the host launches one thing in place of thousands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Enough for torch.compile, cuDNN's search and the momentum to come into being.
WARM_UP = 3


class GraphedStep:
    """``step`` (of nested tensors of constant shapes, to a dict of tensors) replayed from its fourth call on.

    The first three calls run ``step`` itself, beside the main stream as capture needs it. They are real updates, and
    recording executes nothing, so a run takes the same updates with and without graphs. What ``step`` changes (weights,
    buffers, momentum) it must change in place, and it must not wait for the device.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]]) -> None:
        self.step, self.calls = step, 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, *inputs: Any) -> dict[str, Tensor]:
        if self.calls < WARM_UP:
            self.calls += 1
            return self._beside(inputs)
        leaves, structure = pytree.tree_flatten(inputs)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        if self.graph is None:
            self.inputs = [x.clone() for x in tensors]
            fixed = iter(self.inputs)
            self._record(
                pytree.tree_unflatten([next(fixed) if isinstance(x, Tensor) else x for x in leaves], structure)
            )
        else:
            for fixed_input, x in zip(self.inputs, tensors, strict=True):
                fixed_input.copy_(x)
        assert self.graph is not None
        self.graph.replay()
        return {name: x.clone() for name, x in self.outputs.items()}  # the next replay writes over them

    def _beside(self, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        main = torch.cuda.current_stream()
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            outputs = self.step(*inputs)
        main.wait_stream(self.stream)
        return outputs

    def _record(self, inputs: Any) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.outputs = self.step(*inputs)
