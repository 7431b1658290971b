"""Times the parts of a training step of any method, by hooks on the modules that hold convolutions."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.training.step import TrainStep

NAMES = ("draws", "network forward", "objective forward", "objective backward", "network backward", "optimizer")


class StepTimer:
    """Times the parts of an eager step.

    The network is the outermost called modules that hold a convolution: the stages and the tails of branches. The
    objective is the rest of the method's forward pass, and the backward pass until the gradient enters the network. A
    gradient that leaves the network (into a mix of maps) counts for the objective until it enters the network again.

    ``clock`` returns seconds on a CPU; wall-clock time by default.
    """

    def __init__(self, step: TrainStep, device: torch.device, clock: Callable[[], float] | None = None) -> None:
        self.step, self.cuda, self.clock = step, device.type == "cuda", clock
        self.marks: list[tuple[Any, str]] = []
        self.depth = 0

    def measure(self, run: Callable[[], None], steps: int) -> dict[str, float]:
        """Median seconds of each of NAMES and of the whole ``step`` over ``steps`` calls of ``run``."""
        with ExitStack() as stack:
            for handle in self._attach():
                stack.enter_context(handle)
            rows = [self._one(run) for _ in range(steps)]
        return {name: float(torch.tensor([row[name] for row in rows]).median()) for name in rows[0]}

    def _one(self, run: Callable[[], None]) -> dict[str, float]:
        self.marks = []
        self._enter("draws")
        run()
        self._enter("end")
        if self.cuda:
            torch.cuda.synchronize()
        row = dict.fromkeys(NAMES, 0.0)
        for (start, name), (end, _) in pairwise(self.marks):
            row[name] = row.get(name, 0.0) + self._between(start, end)
        return {**row, "step": self._between(self.marks[0][0], self.marks[-1][0])}

    def _enter(self, name: str) -> None:
        mark: Any = time.perf_counter() if self.clock is None else self.clock()
        if self.cuda:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
        self.marks.append((mark, name))

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1000 if self.cuda else end - start

    def _attach(self) -> list[Any]:
        method, optimizer = self.step.method, self.step.optimizer
        handles = [
            method.register_forward_pre_hook(lambda *_: self._enter("objective forward")),
            method.register_forward_hook(self._after_forward),
            optimizer.register_step_pre_hook(lambda *_: self._enter("optimizer")),
        ]
        for module in method.modules():
            if module is not method and any(isinstance(m, nn.Conv2d) for m in module.modules()):
                handles.append(module.register_forward_pre_hook(self._into_network))
                handles.append(module.register_forward_hook(self._out_of_network))
        return handles

    def _after_forward(self, _module: nn.Module, _inputs: Any, terms: dict[str, Tensor]) -> None:
        terms["loss"].register_hook(lambda _gradient: self._enter("objective backward"))

    def _into_network(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.depth += 1
        if self.depth > 1:
            return
        for x in inputs:
            if isinstance(x, Tensor) and x.requires_grad and not getattr(x, "_of_network", False):
                x.register_hook(lambda _gradient: self._enter("objective backward"))
        self._enter("network forward")

    def _out_of_network(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.depth -= 1
        if self.depth:
            return
        for x in output if isinstance(output, tuple | list) else [output]:
            if isinstance(x, Tensor) and x.requires_grad:
                x._of_network = True  # type: ignore[attr-defined]
                x.register_hook(lambda _gradient: self._enter("network backward"))
        self._enter("objective forward")
