"""Show the progress of the verification of many files on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 30.0  # seconds between two lines where no bar can be drawn


class Lines:
    """A line now and then, with the time left."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.started = self.last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY:
            left = (now - self.started) / done * (self.total - done)
            print(f"{self.what}: {done:,} of {self.total:,}, {left / 60:.0f} min left", file=sys.stderr, flush=True)
            self.last = now


class Bar:
    """A bar with the time left, from the second second on."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.started = what, total, time.monotonic()
        self.shown: Progress | None = None

    def __call__(self, done: int) -> None:
        if self.shown is None and time.monotonic() - self.started > 1:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.shown = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.shown.add_task(self.what, total=self.total)
            self.shown.start()
        if self.shown is not None:
            self.shown.update(self.task, completed=done)


@contextmanager
def progress(what: str, total: int) -> Iterator[Lines | Bar]:
    """Called with the number of files that are done; shows a bar in a terminal, else lines."""
    if not sys.stderr.isatty():
        yield Lines(what, total)
        return
    bar = Bar(what, total)
    try:
        yield bar
    finally:
        if bar.shown is not None:
            bar.shown.stop()
