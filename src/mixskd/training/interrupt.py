"""Ctrl-C and SIGTERM end a run between two steps, after a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mixskd.errors.terminal import show
from mixskd.runtime.distributed import World


class Interrupted(SystemExit):
    """A signal stopped the run after a checkpoint; the exit code is 128 + the number of the signal."""


class Interrupt:
    """While active, the first SIGINT or SIGTERM prints ``answer`` and sets ``requested``; a second one of the same kind
    has its usual effect, but not before the end of what is :meth:`held`.

    Several processes agree on a signal only at every ``every``-th step, because their hosts wait for each other then.
    """

    def __init__(self, world: World, every: int = 1, answer: str = "") -> None:
        self.requested, self.world, self.answer = 0, world, answer
        self.seen: set[int] = set()
        self.holds = False
        self.every, self.calls = every, 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in self.seen and not self.holds:
            signal.signal(number, self.previous[number])
            signal.raise_signal(number)
            return
        text = "the checkpoint is being saved; wait a moment" if self.holds else self.answer
        if text and self.world.first:  # not by print, which the signal may have interrupted
            os.write(2, f"\nmixskd: {signal.Signals(number).name}: {text}\n".encode())
        self.seen.add(number)
        self.requested = number

    @contextmanager
    def held(self) -> Iterator[None]:
        """Signals are noted, and end nothing, in this context: a checkpoint is being written."""
        self.holds = True
        try:
            yield
        finally:
            self.holds = False

    def signal(self) -> int:
        """The number of a signal that any process received, 0 for none. Each process calls this after every step."""
        self.calls += 1
        if self.world.size > 1 and self.calls % self.every:
            return 0
        return self.world.highest(self.requested)

    def leave(self, number: int, out: Path) -> NoReturn:
        """Raises Interrupted, with a line on stderr."""
        if self.world.first:
            name = signal.Signals(number).name
            show(f"mixskd: stopped by {name}; saved in {out}; continue with --resume", error=True)
        raise Interrupted(128 + number)
