"""Show the progress of the verification of many files on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
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


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of files that are done: it moves a bar in a terminal, else prints lines."""
    if not sys.stderr.isatty():
        yield Lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
