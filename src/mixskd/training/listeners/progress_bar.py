"""The screen of a run: its description, a bar with rate, time left and loss, and a line per epoch."""

import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from mixskd.config.task_kinds import KINDS
from mixskd.errors.terminal import console as on_stream
from mixskd.errors.text import visible
from mixskd.training.description import time_line
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#@"
MEASURED = 3.0  # seconds of the first steps, which tell how long the run will take
WIDE = 100  # columns from which on every loss term is shown


def sparkline(values: Sequence[float], *, plain: bool = False) -> str:
    """A character for each of ``values``, from the lowest to the highest; ``?`` for one that is not finite.

    ``plain`` uses ASCII alone.
    """
    marks = PLAIN if plain else BLOCKS
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    step = (high - low) / (len(marks) - 1) or 1.0
    return "".join(marks[round((value - low) / step)] if math.isfinite(value) else "?" for value in values)


class Bars(Progress):
    """A bar with the run's curves below it."""

    curves = Text("")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.curves:
            yield self.curves


class ProgressBar(Listener):
    """A bar on a terminal, and lines alone in a file or a pipe.

    With ``run.curve`` the loss and the score of the last epochs are drawn as curves, below the bar and at the end.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or on_stream(error=True)
        self.bar: Bars | None = None
        self.score = ""
        self.timed = False

    def start(self, info: RunInfo) -> None:
        self.info, self.log_every = info, info.experiment.run.log_every
        self.epochs = info.experiment.run.epochs
        for line in (*info.description, *(f"note: {note}" for note in info.notes)):
            self._say(line)
        self.score = next((self._score(row) for row in reversed(info.rows) if info.monitor in row), "")
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), TaskProgressColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[status]}", markup=False),
        )  # fmt: skip
        widgets = self.console.is_jupyter and find_spec("ipywidgets") is not None
        interactive = widgets or (self.console.is_terminal and sys.stderr.isatty())
        self.bar = Bars(*columns, console=self.console, disable=not interactive, transient=True, expand=True)
        self.task = self.bar.add_task("", total=self.epochs * info.steps_per_epoch, completed=info.step, status="")
        self.started, self.first_images = time.perf_counter(), -1
        self.rows = list(info.rows)
        self._draw_curves()
        self.bar.start()

    def step(self, info: StepInfo) -> None:
        """Read the losses of the epoch and redraw, every ``log_every`` steps."""
        assert self.bar is not None
        if self.first_images < 0:
            info.losses()  # waits for the device, so that the time of the next steps is right
            self.first_images, self.started, self.first_step = info.images, time.perf_counter(), info.step
        elif not self.timed and time.perf_counter() - self.started > MEASURED:
            info.losses()
            self.timed, left = True, self.epochs * self.info.steps_per_epoch - info.step
            self._say(time_line(left, (time.perf_counter() - self.started) / (info.step - self.first_step)))
        if self.bar.disable or info.step % self.log_every:
            return
        rate = (info.images - self.first_images) / max(time.perf_counter() - self.started, 1e-9)
        losses = info.losses()
        if self.console.width < WIDE:
            losses = {"loss": losses["loss"]}
        shown = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.bar.update(
            self.task, completed=info.step, description=f"{info.epoch + 1}/{self.epochs}",
            status=visible(f"{rate:.0f} img/s {shown} {self.score}"),
        )  # fmt: skip

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print a line for the finished epoch."""
        score = f"{self._score(row)}  " if self.info.monitor in row else ""
        self.score = score.strip() or self.score
        self._say(f"epoch {row['epoch']:>3.0f}/{self.epochs}  loss {row['train_loss']:.4f}  {score}lr {row['lr']:.4g}")
        self.rows.append(row)
        self._draw_curves()

    def _say(self, line: str) -> None:
        self.console.print(visible(line), highlight=False, markup=False, soft_wrap=True)

    def _draw_curves(self) -> None:
        assert self.bar is not None
        length = self.info.experiment.run.curve
        plain = not self.console.encoding.lower().startswith("utf")
        lines = []
        for name in ("train_loss", self.info.monitor):
            values = [row[name] for row in self.rows if name in row][-length:] if length else []
            if len(values) > 1:
                shown = values[-max(self.console.width - 45, 10) :]
                ends = f"{shown[0]:.4g} to {shown[-1]:.4g}"
                lines.append(f"{name.replace('_', ' '):14.14} {sparkline(shown, plain=plain)} {ends}")
        self.bar.curves = Text("\n".join(map(visible, lines)))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Print the curves."""
        if self.bar is not None and self.bar.curves:
            self.bar.stop()
            self.console.print(self.bar.curves)

    def _score(self, row: Mapping[str, float]) -> str:
        split, _, name = self.info.monitor.partition("_")
        value = row[self.info.monitor]
        named = next((kind.scores[name] for kind in KINDS if name in kind.scores), "top-1")
        return f"{split} {named} {value:.2f} %"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
