"""``mixskd train`` with the seconds of each epoch and a projection of the whole run, written after each epoch.

python benchmarks/timed_train.py SECONDS.json FLAG ..., with the flags of ``mixskd train``.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mixskd.cli.main import main
from mixskd.runtime.files import write_text
from mixskd.training import run
from mixskd.training.listeners import Listener, RunInfo


class EpochClock(Listener):
    """Writes the seconds of each epoch to ``path``; those of a checkpoint that is waited for are the next epoch's."""

    def __init__(self, path: Path) -> None:
        self.path, self.seconds, self.epochs = path, list[float](), 0
        self.last = time.perf_counter()

    def start(self, info: RunInfo) -> None:
        """The clock starts before the first step, which compiles."""
        self.epochs, self.last = info.experiment.run.epochs, time.perf_counter()

    def epoch(self, row: Mapping[str, float]) -> None:
        """Write the figures so far."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        first, *others = self.seconds
        usual = statistics.median(others or [first])
        figures = {
            "epochs_done": row["epoch"],
            "seconds_of_epochs": self.seconds,
            "seconds_of_the_first_epoch": first,
            "median_seconds_of_the_others": usual,
            "mean_seconds_of_the_others": statistics.fmean(others or [first]),
            "projected_minutes_of_all_epochs": (first + usual * (self.epochs - 1)) / 60,
            "epochs": self.epochs,
        }
        write_text(self.path, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    clock = EpochClock(Path(sys.argv[1]))
    run.train = functools.partial(run.train, listeners=[clock])  # type: ignore[assignment]
    sys.exit(main(["train", *sys.argv[2:]]))
