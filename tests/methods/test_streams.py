"""Branches side by side: what is launched in which order, on stubs of torch.cuda that write it down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from mixskd.backbones.tokens import TokenMap
from mixskd.methods.parts import streams
from mixskd.methods.parts.branches import AuxiliaryBranches
from mixskd.methods.parts.streams import run_all, side_by_side
from tests.conftest import make_toy


class Cuda:
    """Streams and events that note what they are asked, by number; ``main`` is the stream at the start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, capturing: bool = True) -> None:
        self.said: list[tuple[str, ...]] = []
        self.events = self.streams = 0
        cuda = self

        class Stream:
            def __init__(self, name: str | None = None) -> None:
                cuda.streams += name is None
                self.name = name or f"side{cuda.streams}"

            def wait_event(self, event: Any) -> None:
                cuda.said.append(("wait", self.name, event.name))

        class Event:
            def __init__(self) -> None:
                self.name = f"event{cuda.events}"
                cuda.events += 1

            def record(self, stream: Stream) -> None:
                cuda.said.append(("record", stream.name, self.name))

        @contextmanager
        def stream(new: Stream) -> Iterator[None]:
            before, self.current = self.current, new
            yield
            self.current = before

        self.current = Stream("main")
        for name, value in {
            "Stream": Stream, "Event": Event, "stream": stream, "current_stream": lambda: self.current,
            "is_current_stream_capturing": lambda: capturing,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)

    def module(self, name: str) -> Any:
        def run(x: Tensor) -> Tensor:
            self.said.append(("run", self.current.name, name))
            return 2 * x

        return run


ONE, TWO = torch.ones(1), torch.full((1,), 3.0)


def test_each_branch_is_forked_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    with side_by_side():
        results = run_all([cuda.module("a"), cuda.module("b")], [ONE, TWO])
    assert [x.item() for x in results] == [2, 6]
    fork, (a, b) = "event0", ("event1", "event2")
    assert cuda.said == [
        ("record", "main", fork),
        ("wait", "side1", fork), ("run", "side1", "a"), ("record", "side1", a),
        ("wait", "side2", fork), ("run", "side2", "b"), ("record", "side2", b),
        ("wait", "main", a), ("wait", "main", b),
    ]  # fmt: skip
    assert cuda.current.name == "main"


def test_memory_is_kept_until_the_other_stream_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, kept = Cuda(monkeypatch), []
    monkeypatch.setattr(streams, "_used_on", lambda stream, x: kept.append((stream.name, tuple(x.shape))) or x)
    tokens = TokenMap(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 1))
    with side_by_side():
        run_all([lambda x: x, cuda.module("b")], [tokens, ONE])
    grid, prefix = tuple(tokens.grid.shape), tuple(tokens.prefix.shape)
    assert kept[:4] == [("side1", grid), ("side1", prefix), ("main", grid), ("main", prefix)]
    assert kept[4:] == [("side2", (1,)), ("main", (1,))]


@pytest.mark.parametrize("case", ["not wanted", "not recorded", "one branch", "compiled"])
def test_else_they_run_one_after_the_other(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, capturing=case != "not recorded")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: case == "compiled")
    names = "a" if case == "one branch" else "ab"
    with side_by_side(case != "not wanted"):
        run_all([cuda.module(name) for name in names], [ONE, TWO][: len(names)])
    assert cuda.said == [("run", "main", name) for name in names]


def test_the_branches_give_the_same_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_toy(4)
    branches, maps = AuxiliaryBranches(net).double(), net.feature_maps(torch.randn(2, 3, 16, 16).double())
    plain = branches(maps)
    cuda = Cuda(monkeypatch)
    with side_by_side():
        forked = branches(maps)
    assert len([said for said in cuda.said if said[:2] == ("wait", "main")]) == 3
    assert all(torch.equal(one, other) for one, other in zip(plain, forked, strict=True))
