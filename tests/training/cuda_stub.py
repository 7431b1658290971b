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


class Graph:
    """``fails`` is raised where a recording ends."""

    modes: list[str] = []
    fails: Exception | None = None

    def __init__(self) -> None:
        self.replays = 0
        self.play: Any = None

    def replay(self) -> None:
        self.replays += 1
        self.play()


@contextlib.contextmanager
def recording(graph: Graph, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
    Graph.modes.append(capture_error_mode)
    yield
    if Graph.fails is not None:
        raise Graph.fails


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stubs in torch's place. A recording runs nothing: the step is taken at the replays only."""
    monkeypatch.setattr(Stream, "made", 0)
    monkeypatch.setattr(Graph, "modes", [])
    monkeypatch.setattr(Graph, "fails", None)
    for name, value in {"Stream": Stream, "CUDAGraph": Graph, "graph": recording}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    record, step_of = GraphedStep._record, GraphedStep.__init__

    def keep(self: GraphedStep, step: Any) -> None:
        step_of(self, step)
        self.true_step = step  # type: ignore[attr-defined]

    def without_running(self: GraphedStep, inputs: Any) -> None:
        self.step = lambda *_: {}
        record(self, inputs)

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
