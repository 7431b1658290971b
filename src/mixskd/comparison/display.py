"""Progress of runs on a terminal; for a comparison, a bar for each active run and a line for each finished one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from mixskd.artifacts.results import deployed_scores
from mixskd.comparison.plan import Run, unfinished
from mixskd.config.task_kinds import kind_of
from mixskd.errors.text import counted, visible


class Display:
    """What the scheduler calls while runs proceed. By itself it prints only those that failed."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, runs: Sequence[Run]) -> None:
        """Show the active ``runs``."""

    def finished(self, run: Run) -> None:
        """Show that a run has finished."""

    def failed(self, run: Run, reason: str) -> None:
        """Print why a run failed."""
        self.console.print(visible(f"{run.name}: {reason}"))


class RunsDisplay(Display):
    """Shows the state of ``runs``, which is read from their folders."""

    def __init__(self, runs: Sequence[Run], *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        self.bars = RichProgress(*columns, console=self.console, disable=quiet or not sys.stderr.isatty())
        self.total, self.done = len(runs), len(runs) - len(unfinished(runs))
        self.whole = self.bars.add_task("runs", total=self.total, completed=self.done)
        self.bar_of: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.console.print(f"{counted(self.total, 'run')}, {self.done} of them finished before")
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show(self, runs: Sequence[Run]) -> None:
        """Update the bars of the active ``runs``."""
        if self.bars.disable:
            return
        shown = {run.name: run for run in runs}
        for name in self.bar_of.keys() - shown.keys():
            self.bars.remove_task(self.bar_of.pop(name))  # type: ignore[arg-type]
        for name, run in shown.items():
            if name not in self.bar_of:
                self.bar_of[name] = self.bars.add_task(visible(name), total=run.experiment.run.epochs)
            with suppress(OSError):  # there is no metrics.csv yet
                epochs = run.files.metrics.read_text(encoding="utf-8").count("\n") - 1
                self.bars.update(self.bar_of[name], completed=max(0, epochs))  # type: ignore[arg-type]

    def finished(self, run: Run) -> None:
        """Print the score of a finished run."""
        summary = json.loads(run.files.summary.read_text(encoding="utf-8"))
        split, scores = deployed_scores(summary)
        kind = kind_of(run.experiment.method.name, summary.get("task"))
        text = f"top-1 {scores['top1']:.2f} %" if kind is None else kind.line(scores)
        self._line(run, f"{split} {text} in {summary['seconds']:.0f} s")

    def failed(self, run: Run, reason: str) -> None:
        self._line(run, f"failed: {reason}")

    def _line(self, run: Run, text: str) -> None:
        self.done += 1
        self.bars.update(self.whole, completed=self.done)
        self.console.print(visible(f"[{self.done}/{self.total}] {run.name}: {text}"))
