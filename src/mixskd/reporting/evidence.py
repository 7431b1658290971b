"""The content of a report: finished runs with their curves and suites, and the data sets that can still be read."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from mixskd.artifacts.results import Result, read_result, read_results
from mixskd.artifacts.stored_files import read_rows
from mixskd.config import DataConfig
from mixskd.config.records import LARGEST
from mixskd.config.task_kinds import KINDS, monitor_of
from mixskd.data import DataBundle, load_data
from mixskd.data.sources.named import NAMED
from mixskd.errors import UserError
from mixskd.evaluation.stored_results import read_suite
from mixskd.evaluation.suites import SUITES
from mixskd.reporting.grouping import Repeated, put_together

MOST_POINTS = 200
NOT_CURVES = ("epoch", "step")


@dataclass(frozen=True)
class Run:
    """One finished run, with its curves and the results of its suites."""

    label: str
    result: Result

    @cached_property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """(epoch, value) pairs of every numeric column of metrics.csv, at most ``MOST_POINTS`` each."""
        path = self.result.folder / "metrics.csv"
        if not path.exists():
            return {}
        found: dict[str, list[tuple[float, float]]] = {}
        for row in read_rows(path):
            epoch = _number(row.get("epoch"))
            for name, text in row.items():
                value = _number(text)
                if name and name not in NOT_CURVES and epoch is not None and value is not None:
                    found.setdefault(name, []).append((epoch, value))
        return {name: thinned(points) for name, points in found.items()}

    @cached_property
    def suites(self) -> dict[str, dict[str, Any]]:
        """The results of the evaluation suites, by name. Raises UserError for an invalid file."""
        paths = {name: self.result.folder / "evaluation" / f"{name}.json" for name in SUITES}
        return {name: read_suite(path, name) for name, path in paths.items() if path.exists()}


@dataclass(frozen=True)
class Evidence:
    """The runs of a report, and their settings (``lines``), each with the runs of all its seeds.

    Classifiers come first, then detectors, then segmentation networks; of each kind the highest mean score first.
    """

    lines: tuple[Repeated, ...]
    runs: tuple[Run, ...]

    def first_runs(self) -> list[tuple[Repeated, Run]]:
        """Each setting with the first of its runs."""
        runs = {run.result.folder: run for run in self.runs}
        return [(line, runs[line.results[0].folder]) for line in self.lines]

    def with_suite(self, name: str) -> list[tuple[Run, dict[str, Any]]]:
        """The runs that have a result of the suite ``name``, each with that result."""
        return [(run, run.suites[name]) for run in self.runs if name in run.suites]

    @cached_property
    def suites(self) -> list[str]:
        """The suites of which any run has a result."""
        return [name for name in SUITES if self.with_suite(name)]


def read_evidence(paths: Sequence[str | Path]) -> Evidence:
    """The finished runs in ``paths``, each the folder of a run or a folder of such.

    Raises UserError for a path that is not a folder, a folder without a finished run, or a run without a score.
    """
    results: dict[Path, Result] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"there is no folder {path}; give a run's folder, or a folder of runs")
        found = [read_result(path)] if (path / "summary.json").exists() else read_results(path)
        results |= {result.folder.resolve(): result for result in found}
    for result in results.values():
        try:
            if result.kind is None:
                float(result.top1), float(result.best["top1"])
            else:
                float(result.score)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{result.folder} has no {monitor_of(result.kind).title} in its summary; leave this run out"
            ) from None
    lines = put_together(results.values())
    lines.sort(key=_place)
    runs = [Run(_name(line, result), result) for line in lines for result in line.results]
    return Evidence(tuple(lines), tuple(runs))


def _place(line: Repeated) -> tuple[int, float]:
    return (None, *KINDS).index(line.kind), -fmean(result.score or 0.0 for result in line.results)


def _name(line: Repeated, result: Result) -> str:
    return f"{line.label}, seed {result.experiment.run.seed}" if len(line.results) > 1 else line.label


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except (TypeError, ValueError):
        return None
    return value if abs(value) <= LARGEST else None


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` of ``points``, evenly spaced, with the first and the last."""
    count = min(len(points), MOST_POINTS)
    return [points[round(i * (len(points) - 1) / max(count - 1, 1))] for i in range(count)]


class Readable:
    """Reads each data set once for all runs."""

    def __init__(self) -> None:
        self.known: dict[DataConfig, DataBundle | None] = {}

    def bundle(self, config: DataConfig) -> DataBundle | None:
        """The data of ``config``; None if they are not here. Nothing is downloaded, and no huge folder is listed."""
        key = dataclasses.replace(config, augment="none", workers=None, color_jitter=())
        if key not in self.known:
            self.known[key] = None
            named = config.source == "digits" or (config.source in NAMED and config.source != "imagenet")
            if named or Path(config.source).expanduser().exists():
                with suppress(UserError, OSError, ValueError):
                    self.known[key] = load_data(key, verify=False, download=False)
        return self.known[key]
