"""Measure what ``mixskd tune`` adds to the time of its runs: seconds in which the search has no run under way.

``python benchmarks/tune_overhead.py --epochs 2 18 --out results/benchmarks/tune_overhead/digits.json`` makes one search
on the digits for each number of epochs of the recipe, with one run at a time. The seconds of a run are those from its
submission to its end, the load of its data and its scores included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

import mixskd
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.launchers.local import Local
from mixskd.runtime.files import write_text
from mixskd.training.summary import provenance

SPANS: list[tuple[float, float]] = []  # of each run: its submission and its end


class Timed(Local):
    """The local launcher, which notes when its runs begin and end."""

    def submit(self, folder: Path, name: str) -> Future[int]:
        begun, job = time.perf_counter(), super().submit(folder, name)
        job.add_done_callback(lambda _: SPANS.append((begun, time.perf_counter())))
        return job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 18])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    LAUNCHERS["local"] = Timed
    rows = []
    for epochs in arguments.epochs:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"epochs": epochs, "trials": arguments.trials, **measured(epochs, arguments.trials, folder)})
        print(json.dumps(rows[-1]))
    write_text(arguments.out, json.dumps({"rows": rows, **provenance()}, indent=1) + "\n")


def measured(epochs: int, trials: int, folder: str) -> dict[str, Any]:
    """Seconds of a search: of its runs, before the first, between two, and after the last, which scores ``test``."""
    SPANS.clear()
    begun = time.perf_counter()
    mixskd.tune(
        "digits", data={"source": "digits", "val_holdout": 0.2}, methods=["baseline", "mixup", "mixskd"],
        trials=trials, out=Path(folder) / "search", jobs=1, devices="cpu", progress=False,
        run={"epochs": epochs, "evaluate_every": max(1, epochs // 3)},
    )  # fmt: skip
    ended = time.perf_counter()
    spans = sorted(SPANS)
    runs = sum(end - start for start, end in spans)
    gaps = [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans)]
    return {
        "runs": len(spans), "seconds_of_runs": round(runs, 2),
        "median_seconds_of_a_run": round(median(end - start for start, end in spans), 2),
        "seconds_before": round(spans[0][0] - begun, 2), "seconds_between": round(sum(gaps), 2),
        "median_seconds_between": round(median(gaps), 3), "seconds_after": round(ended - spans[-1][1], 2),
        "overhead_percent": round(100 * (ended - begun - runs) / runs, 2),
        "between_percent": round(100 * sum(gaps) / runs, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
