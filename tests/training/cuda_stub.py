"""CUDA graphs on a CPU: streams that do nothing, and graphs that take the recorded step again at each replay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mixskd.training.graphs import GraphedStep


class Stream:
    made = 0

    def __init__(self, *_: Any) -> None:
        Stream.made += 1

    def wait_stream(self, _other: Stream) -> None:
        pass


class State:
    """Of a generator. As in older releases of torch, a recording that breaks leaves it within the recording."""

    recording = False


class Generator:
    def __init__(self) -> None:
        self.state = State()

    def clone_state(self) -> State:
        return State()

    def graphsafe_set_state(self, state: State) -> None:
        self.state = state


class Graph:
    """``fails`` is raised where a recording ends."""

    modes: list[str] = []
    pools: list[Any] = []  # of recordings that did not end
    kept: list[Any] = []  # whose memory was not released
    generator = Generator()
    fails: Exception | None = None

    def __init__(self) -> None:
        self.replays = 0
        self.play: Any = None
        self.ended = False

    def pool(self) -> Any:
        if not self.ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return (0, 1)

    def replay(self) -> None:
        self.replays += 1
        self.play()

    def reset(self) -> None:
        self.play = None


@contextlib.contextmanager
def recording(graph: Graph, *, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
    Graph.modes.append(capture_error_mode)
    Graph.pools.append((0, pool))
    Graph.kept.append((0, pool))
    Graph.generator.state.recording = True
    yield
    if Graph.fails is not None:
        raise Graph.fails
    Graph.generator.state.recording = False
    Graph.pools.pop()
    graph.ended = True


def ended(device: int, pool: Any) -> None:
    """Raises for a pool that is not recorded to, as where torch ends a broken recording itself."""
    Graph.pools.remove((device, pool))


def released(device: int, pool: Any) -> None:
    Graph.kept.remove((device, pool))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stubs in torch's place. A recording runs nothing: the step is taken at the replays only."""
    monkeypatch.setattr(Stream, "made", 0)
    monkeypatch.setattr(Graph, "modes", [])
    monkeypatch.setattr(Graph, "pools", [])
    monkeypatch.setattr(Graph, "kept", [])
    monkeypatch.setattr(Graph, "generator", Generator())
    monkeypatch.setattr(Graph, "fails", None)
    for name, value in {"Stream": Stream, "CUDAGraph": Graph, "graph": recording}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "default_generators", (Graph.generator,))
    for name, answer in {"current_device": 0, "graph_pool_handle": (0, 1), "synchronize": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", released, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    record, step_of = GraphedStep._record, GraphedStep.__init__

    def keep(self: GraphedStep, step: Any) -> None:
        step_of(self, step)
        self.true_step = step  # type: ignore[attr-defined]

    def without_running(self: GraphedStep, inputs: Any) -> None:
        self.step = lambda *_: {}
        record(self, inputs)
        self.step = self.true_step  # type: ignore[attr-defined]

        def play() -> None:
            with outside(False):
                self.outputs = self.true_step(*inputs)  # type: ignore[attr-defined]

        self.graph.play = play  # type: ignore[union-attr]

    monkeypatch.setattr(GraphedStep, "__init__", keep)
    monkeypatch.setattr(GraphedStep, "_record", without_running)


within = False


@contextlib.contextmanager
def outside(value: bool) -> Iterator[None]:
    """Notes in ``within`` whether a replay is going on, for those that count launches."""
    global within
    before, within = within, not value
    try:
        yield
    finally:
        within = before
