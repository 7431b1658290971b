"""Progress bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixskd.errors.text import visible

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mixskd.evaluation.runner import Progress


@contextmanager
def suite_bars(runs: int) -> Iterator[Progress]:
    """A bar for each suite, and for each of ``runs`` runs; the value is called with (run, suite, fraction done)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as shown:
        tasks: dict[tuple[str, str], TaskID] = {}

        def update(run: str, suite: str, fraction: float) -> None:
            if (run, suite) not in tasks:
                tasks[run, suite] = shown.add_task(visible(f"{run} {suite}" if runs > 1 else suite), total=1.0)
            shown.update(tasks[run, suite], completed=fraction)

        yield update


@contextmanager
def image_bar(total: Callable[[], int], *, hidden: bool) -> Iterator[Callable[[], object]]:
    """A bar over ``total()`` images; the value moves it by one image, and does nothing if the bar is ``hidden``."""
    if hidden or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("predict", total=total())
        yield lambda: shown.advance(task)
