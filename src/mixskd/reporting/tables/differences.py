"""What a setting gains over another one, with an interval over the seeds that both have."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtrit

from mixskd.reporting.repeated import Repeated
from mixskd.reporting.tables.cells import Cell, Interval

FEWEST = 3  # pairs; with fewer an interval says nothing
CONFIDENCE = 0.95
NOTE = (
    "Difference: the mean of top-1 less that of the reference, in points, over the seeds that both have on the same "
    f"split. In brackets is its {100 * CONFIDENCE:g} % t-interval. With fewer than three such seeds there is "
    "no interval. Several intervals in one table are not corrected for their number."
)


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's interval of the mean of ``values``; None for fewer than three."""
    count = len(values)
    if count < FEWEST:
        return None
    mean = fmean(values)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * stdev(values) / sqrt(count)
    return Interval(mean, mean - half, mean + half)


def paired(line: Repeated, reference: Repeated) -> list[float]:
    """Top-1 of ``line`` less that of ``reference``, for each seed and split that both have."""
    theirs = {(result.experiment.run.seed, result.split): result.top1 for result in reference.results}
    pairs = [(result.top1, theirs.get((result.experiment.run.seed, result.split))) for result in line.results]
    return [mine - other for mine, other in pairs if other is not None]


def difference_columns(lines: Sequence[Repeated], label: str) -> dict[str, list[Cell]]:
    """The column of differences to the setting called ``label`` with the same backbone and policy."""
    references = {_place(line): line for line in lines if line.label == label}
    cells = [_cell(line, references.get(_place(line))) for line in lines]
    return {f"difference to {label}": cells} if references else {}


def _place(line: Repeated) -> tuple[str, str]:
    return line.experiment.backbone, line.experiment.data.augment


def _cell(line: Repeated, reference: Repeated | None) -> Cell:
    if reference is None or line is reference:
        return None
    return t_interval(paired(line, reference)) or "too few seeds"
