"""A training step recorded once as a CUDA graph and replayed, so that the host launches it as one operation."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mixskd.errors import first_line

WARM_UP = 3  # steps for torch.compile, cuDNN's search for algorithms, and the creation of the momentum


class RecordingError(RuntimeError):
    """The step could not be recorded. Nothing was executed, so the step can be repeated without a graph."""


class GraphedStep:
    """``step`` (of nested tensors, to a dict of tensors) replayed from its fourth call on, until the shapes change.

    The first three calls, and the first three with new shapes, run ``step`` itself, beside the main stream as capture
    needs it. They are real updates, and recording executes nothing, so a run takes the same updates with and without
    graphs. What ``step`` changes (weights, buffers, momentum) it must change in place, and it must not wait for the
    device. Random numbers follow from the seed of the default generator at each call. The tensors that a call returns
    are valid until the next one.

    Raises RecordingError if a step cannot be recorded.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]]) -> None:
        self.step, self.calls = step, 0
        self.form: list[Any] = []  # shapes of the tensors, and numbers, which a recording holds fixed
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, *inputs: Any) -> dict[str, Tensor]:
        leaves, structure = pytree.tree_flatten(inputs)
        if self.form != (form := [getattr(x, "shape", x) for x in leaves if not callable(x)]):
            self.close()
            self.calls, self.form = 0, form
        if self.calls < WARM_UP:
            outputs = self._beside(inputs)
            self.calls += 1
            return outputs
        tensors = {id(x): x for x in leaves if isinstance(x, Tensor)}  # a repeated tensor is copied once
        if self.graph is None:
            fixed = {key: x.clone() for key, x in tensors.items()}
            self.inputs = [*fixed.values()]
            self._record(pytree.tree_unflatten([fixed.get(id(x), x) for x in leaves], structure))
        else:
            for fixed_input, x in zip(self.inputs, tensors.values(), strict=True):
                fixed_input.copy_(x)
        assert self.graph is not None
        self.graph.replay()
        return self.outputs

    def _beside(self, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        main = torch.cuda.current_stream()
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            outputs = self.step(*inputs)
        main.wait_stream(self.stream)
        return outputs

    def _record(self, inputs: Any) -> None:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        random_state = generator.clone_state()
        try:
            # thread_local: the loader's thread that pins memory, and NCCL's, may go on meanwhile. The outer context
            # gives the main stream back even where the end of a broken recording raises.
            with (
                torch.cuda.stream(self.stream),
                torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"),
            ):
                self.outputs = self.step(*inputs)
        except Exception as error:
            generator.graphsafe_set_state(random_state)  # older releases of torch leave it within the recording
            _release(graph, pool)
            raise RecordingError(reason(error)) from error
        self.graph = graph

    def close(self) -> None:
        """Release the graph. NCCL's shutdown waits for the graphs that hold its messages."""
        if self.graph is not None:
            torch.cuda.synchronize()
            self.graph.reset()
        self.graph, self.inputs, self.outputs = None, [], {}


def _release(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """Return the memory of a broken recording to the allocator, so that a step without a graph can use it.

    torch does it only for a recording that has ended. The others keep their whole pool for as long as the process
    lives, and the allocator never reuses blocks that other streams have used.
    """
    try:
        graph.pool()  # raises for a recording that has not ended
    except RuntimeError:
        for release in (torch._C._cuda_endAllocateToPool, torch._C._cuda_releasePool):
            with contextlib.suppress(Exception):
                release(torch.cuda.current_device(), pool)
    graph.reset()


def reason(error: BaseException) -> str:
    """The first line of the error that began the chain of ``error``: the end of a broken recording raises others."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {first_line(error)}"
