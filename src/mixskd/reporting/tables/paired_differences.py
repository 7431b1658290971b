"""Paired differences between settings, with t-intervals over the seeds and folds that both have."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtrit

from mixskd.artifacts.results import Result
from mixskd.reporting.grouping import Repeated
from mixskd.reporting.tables.cells import Cell, Interval

FEWEST = 3  # pairs; with fewer an interval says nothing
CONFIDENCE = 0.95
NOTE = (
    "Difference: the mean of top-1 less that of the reference, in points, over the seeds and folds that both have on "
    f"the same split. In brackets is its {100 * CONFIDENCE:g} % t-interval. With fewer than three such runs there "
    "is no interval. Folds share training images, so an interval over folds is a little too narrow. Several "
    "intervals in one table are not corrected for their number."
)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval of the mean of ``values``; None for fewer than three."""
    count = len(values)
    if count < FEWEST:
        return None
    mean = fmean(values)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * stdev(values) / sqrt(count)
    return Interval(mean, mean - half, mean + half)


def paired(line: Repeated, reference: Repeated) -> list[float]:
    """Top-1 of ``line`` less that of ``reference``, for each seed, fold and split that both have."""
    theirs = {_pair(result): result.top1 for result in reference.results}
    return [result.top1 - theirs[_pair(result)] for result in line.results if _pair(result) in theirs]


def _pair(result: Result) -> tuple[int, int | None, int, str]:
    data = result.experiment.data
    return result.experiment.run.seed, data.folds, data.fold, result.split


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
