"""What a person sees of a run: a bar with rate, time left and every loss term, and a line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

from mixskd.config import Experiment
from mixskd.training.position import Position


class Progress:
    """A bar on a terminal; on a file or a pipe only the epochs' lines."""

    def __init__(
        self, experiment: Experiment, steps_per_epoch: int, notes: Sequence[str] = (), *, quiet: bool = False
    ) -> None:
        self.log_every, self.length = experiment.run.log_every, steps_per_epoch
        self.epochs = experiment.run.epochs
        self.console = Console(stderr=True, quiet=quiet or not experiment.run.progress)
        for note in notes:
            self.console.print(f"note: {note}", highlight=False, markup=False)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        interactive = experiment.run.progress and not quiet and sys.stderr.isatty()
        self.bar = RichProgress(*columns, console=self.console, disable=not interactive, transient=True)
        self.task = self.bar.add_task("", total=self.epochs * steps_per_epoch, status="")
        self.started, self.first_images, self.first_step = time.perf_counter(), 0, -1

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, position: Position, sums: dict[str, Tensor], epoch: int, lr: float) -> None:
        """Every ``log_every`` steps, read the sums of the epoch's terms back and redraw."""
        if self.first_step < 0:
            self.first_step, self.first_images, self.started = position.step, position.images, time.perf_counter()
        if self.bar.disable or position.step % self.log_every:
            return
        steps = position.step - epoch * self.length
        rate = (position.images - self.first_images) / max(time.perf_counter() - self.started, 1e-9)
        terms = "  ".join(f"{name} {value.item() / steps:.3f}" for name, value in sums.items())
        self.bar.update(
            self.task, completed=position.step, description=f"epoch {epoch + 1}/{self.epochs}",
            status=f"{rate:.0f} images/s  lr {lr:.4f}  {terms}",
        )  # fmt: skip

    def epoch_done(self, row: dict[str, float]) -> None:
        """A line for the finished epoch."""
        scores = f"test top-1 {row['test_top1']:.2f} %  " if "test_top1" in row else ""
        self.console.print(
            f"epoch {row['epoch']:>3.0f}/{self.epochs}  loss {row['train_loss']:.4f}  {scores}lr {row['lr']:.4f}",
            highlight=False,
        )
