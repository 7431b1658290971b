"""Typed structures and readers of the files of finished runs: summaries, results of suites, grids."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from mixskd.config import read_yaml
from mixskd.config.records import Amount, Mismatch, Number, Text, Whole, read_record
from mixskd.data.bundle import LARGEST_IMAGE, MOST_CLASSES
from mixskd.errors import UserError
from mixskd.runtime.json_file import is_as_written

LARGEST_FILE = 2**28  # bytes
# Half of a character outside the first plane; Python's stand-ins for bytes of a file name are left out.
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")

Numbers = Annotated[list[Number], Meta(min_length=1)]
Note = Annotated[str, Meta(min_length=1, max_length=100_000)]


class Epoch(Struct):
    """An epoch of a run, the split that it was scored on and its top-1."""

    epoch: Number
    split: Text | UnsetType = UNSET
    top1: Number | UnsetType = UNSET


class Deployed(Struct):
    """The epoch whose weights are deployed."""

    epoch: Number


class Summary(Struct):
    """``summary.json`` of a run; ``best_on_test`` and ``last`` are those of the first format."""

    updates: Amount
    images: Amount
    images_per_second: Amount
    seconds: Amount
    threads: Amount
    device: Text
    precision: Text
    task: Literal["multilabel"] | None = None  # None for the others, whose methods tell
    scores: dict[Text, dict[Text, Number | None]] | UnsetType = UNSET
    best: Epoch | UnsetType = UNSET
    best_on_test: Epoch | UnsetType = UNSET
    last: Epoch | UnsetType = UNSET
    deployed: Deployed | UnsetType = UNSET
    notes: list[Note] | UnsetType = UNSET
    splits: dict[Text, Whole] | UnsetType = UNSET
    splits_digest: Text | UnsetType | None = UNSET
    parameters: Amount | UnsetType = UNSET
    classes: Annotated[int, Meta(ge=2, le=MOST_CLASSES)] | None = None
    image_size: Annotated[int, Meta(ge=1, le=LARGEST_IMAGE)] | None = None


class Headline(Struct):
    """The main score of a suite."""

    name: Text
    value: Number


class WithHeadline(Struct):
    """The part of a suite's result that a table shows."""

    headline: Headline


class Result(WithHeadline):
    """The fields that the results of all suites share."""

    images: Amount
    split: Text


class ClassScores(Struct):
    """The scores of one class."""

    name: Text
    recall: Number
    precision: Number
    f1: Number
    images: Amount


class Accuracy(Result):
    """The result of ``accuracy``."""

    classes: Annotated[list[ClassScores], Meta(min_length=1)]
    confusion: Annotated[list[Numbers], Meta(min_length=1)] | None = None  # of several labels an image there is none

    def __post_init__(self) -> None:
        classes = len(self.classes)
        if self.confusion is None:
            return
        if len(self.confusion) != classes or any(len(row) != classes for row in self.confusion):
            raise ValueError(f"confusion must have {classes} rows and columns, as there are classes")


class Bin(Struct):
    """A bin of a reliability diagram."""

    images: Amount
    confidence: Number | None
    accuracy: Number | None

    def __post_init__(self) -> None:
        if self.images and None in (self.confidence, self.accuracy):
            raise ValueError("a bin with images lacks their confidence or accuracy")


class Reliability(Struct):
    """The calibration error and its diagram."""

    ece: Number
    reliability: list[Bin]


class WholeSplit(Reliability):
    """All measures of calibration."""

    adaptive_ece: Number
    brier: Number
    nll: Number


class Calibration(Result):
    """The result of ``calibration``."""

    whole: WholeSplit
    before: Reliability
    after: Reliability
    temperature: Number
    fitted_on: Text


class Histogram(Struct):
    """How often each probability occurs."""

    mean: Number
    counts: Numbers
    edges: Numbers

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError("there must be one edge more than counts")


class Histograms(Struct):
    """The histograms of one model."""

    predicted: Histogram
    true: Histogram


class Confidence(Result):
    """The result of ``confidence``."""

    shared_mistakes: Amount
    models: dict[Text, Histograms]


class Severities(Struct):
    """The severities of the corruptions."""

    severities: Numbers


class CorruptionError(Struct):
    """The errors under one corruption."""

    error: Number
    by_severity: Numbers


class Corruption(Result):
    """The result of ``corruption``."""

    clean_error: Number
    mean_corruption_error: Number
    protocol: Severities
    corruptions: dict[Text, CorruptionError]

    def __post_init__(self) -> None:
        severities = len(self.protocol.severities)
        if not self.corruptions or any(len(c.by_severity) != severities for c in self.corruptions.values()):
            raise ValueError(f"corruptions must have {severities} errors each, as there are severities")


class Mistake(Struct):
    """An image whose prediction differs from its label."""

    index: Whole
    label: Text
    predicted: Text
    label_probability: Number
    predicted_probability: Number
    path: Text | None = None


class Pair(Struct):
    """Two classes, and how many images of one are predicted as the other."""

    label: Text
    predicted: Text
    images: Amount
    share_of_label: Number


class Errors(Result):
    """The result of ``errors``."""

    number_of_mistakes: Amount
    mistakes: list[Mistake]
    pairs: list[Pair]
    number_of_suspects: Amount
    suspects: list[Mistake]


class Features(Result):
    """The result of ``features``."""

    trained_on: Text
    train_images: Amount
    feature_dim: Amount
    knn_top1: Number
    linear_top1: Number
    converged: Any


class AttackScore(Struct):
    """Top-1 under an attack of one size."""

    epsilon: Amount
    top1: Number


class Attack(Result):
    """The result of ``fgsm`` and ``pgd``."""

    clean_top1: Number
    protocol: dict[Text, Any]
    attacks: Annotated[list[AttackScore], Meta(min_length=1)]


class LinearityPoint(Struct, rename={"share": "lambda"}):
    """A point of the curve of ``linearity``, by the share of the first image in the mix."""

    share: Number
    miss_rate: Number
    mass: Number


class Linearity(Result):
    """The result of ``linearity``."""

    curve: Annotated[list[LinearityPoint], Meta(min_length=1)]


class Detection(Struct):
    """How well a score separates other data from the classifier's own."""

    auroc: Number
    fpr95: Number


class Ood(Result):
    """The result of ``ood``."""

    other_data: Text
    other_images: Amount
    max_softmax: Detection
    energy: Detection


SUITES: dict[str, type[Result]] = {
    "accuracy": Accuracy, "calibration": Calibration, "confidence": Confidence, "corruption": Corruption,
    "errors": Errors, "features": Features, "fgsm": Attack, "linearity": Linearity, "ood": Ood, "pgd": Attack,
}  # fmt: skip


class Grid(Struct):
    """``grid.yaml`` of a comparison, as far as tables need it."""

    methods: list[Text] | dict[Text, Any] | None = None
    suites: list[Text] | None = None
    paper_table: Text | None = None
    equal_cost: Text | None = None


def read_summary(path: Path, *, classifier: bool = True) -> dict[str, Any]:
    """The summary of a run. Raises UserError, naming the file, for one that does not have the parts of a summary."""
    values, summary = _read(path, Summary, "the summary of a run")
    classifier = classifier and summary.task is None
    split = next((name for name in ("test", "val") if name in (summary.scores or {})), None)
    try:
        if split is None and (summary.scores is not UNSET or not classifier):
            raise Mismatch("scores lacks test and val")
        if not classifier:
            if summary.deployed is UNSET:
                raise Mismatch("it lacks deployed")
            return values
        scores = values["scores"][split] if split is not None else values.get("last", {})
        if scores.get("top1") is None:
            raise Mismatch(f"{'last' if split is None else f'scores.{split}'} lacks top1")
        best = summary.best_on_test if summary.best is UNSET else summary.best
        if best is UNSET or best.top1 is UNSET or (summary.best is not UNSET and best.split is UNSET):
            raise Mismatch("best lacks top1 or split")
        if summary.classes is None and summary.parameters is UNSET:
            raise Mismatch("it lacks parameters")
    except Mismatch as error:
        raise _unusable(path, "the summary of a run", error) from None
    return values


def read_suite(path: Path, name: str) -> dict[str, Any]:
    """The result of the evaluation suite ``name``. Raises UserError, naming the file, for anything else."""
    return _read(path, SUITES[name], f"a result of the suite {name}")[0]


def read_headline(path: Path, name: str) -> dict[str, Any]:
    """The headline of a result of the suite ``name``: its ``name`` and ``value``. Raises UserError, naming the file."""
    found: dict[str, Any] = _read(path, WithHeadline, f"a result of the suite {name}")[0]["headline"]
    return found


def read_grid(path: Path) -> Mapping[str, Any]:
    """The ``grid.yaml`` of a comparison, empty if there is none. Raises UserError, naming the file."""
    if not path.exists():
        return {}
    values = read_yaml(path)
    try:
        grid = read_record(values, Grid)
    except Mismatch as error:
        raise UserError(f"{path} is not a grid of mixskd: {error}; remove it") from None
    return {**values, "methods": grid.methods or {}, "suites": grid.suites or ()}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's ``metrics.csv``. Raises UserError, naming the file, for a file that is not a table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of a run's metrics ({error}); remove it") from None


def _read(path: Path, kind: type[Any], what: str) -> tuple[dict[str, Any], Any]:
    """The values in a JSON file, and the same as ``kind``, which may have fewer keys."""
    try:
        if not path.is_file():
            raise Mismatch("it does not exist, or it is not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Mismatch(f"it has more than {LARGEST_FILE:,} bytes")
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if LONE_SURROGATE.search(json.dumps(values, ensure_ascii=False)):
            raise Mismatch("it holds half a character (a lone surrogate)")
        record = read_record(values, kind)
        if not is_as_written(values):
            raise Mismatch("its content is not what was written (its digest differs)")
        return values, record
    except (ValueError, RecursionError) as error:
        raise _unusable(path, what, error) from None


def _unusable(path: Path, what: str, error: Exception) -> UserError:
    reason = f": {error}" if isinstance(error, Mismatch) else ""  # others say that it is not JSON
    return UserError(f"{path} is not {what}{reason}; remove it, or make it again")
