"""Reads the JSON, YAML and CSV files of runs, comparisons and searches, and checks them by typed structures."""

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

FORMAT = "mixskd-search-1"
LARGEST_FILE = 2**28  # bytes
MOST_TRIALS = 100_000
# Half of a character outside the first plane. Python's surrogates for bytes of a file name are allowed.
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")

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


class Grid(Struct):
    """``grid.yaml`` of a comparison, as far as tables need it."""

    methods: list[Text] | dict[Text, Any] | None = None
    suites: list[Text] | None = None
    paper_table: Text | None = None
    equal_cost: Text | None = None


def read_summary(path: Path, *, classifier: bool = True) -> dict[str, Any]:
    """The summary of a run. Raises UserError, naming the file, for one that does not have the parts of a summary."""
    values, summary = read_json(path, Summary, "the summary of a run")
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


def read_grid(path: Path) -> Mapping[str, Any]:
    """The ``grid.yaml`` of a comparison; empty without such a file. Raises UserError, naming the file."""
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


def read_json(path: Path, kind: type[Any], what: str, *, digest: bool = True) -> tuple[dict[str, Any], Any]:
    """The values in a JSON file, and the same as ``kind``, which may have fewer keys. With ``digest`` it is checked.

    Raises UserError for anything else: the message says that ``path`` is not ``what``, and why.
    """
    try:
        if not path.is_file():
            raise Mismatch("it does not exist, or it is not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Mismatch(f"it has more than {LARGEST_FILE:,} bytes")
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if LONE_SURROGATE.search(json.dumps(values, ensure_ascii=False)):
            raise Mismatch("it holds half a character (a lone surrogate)")
        record = read_record(values, kind)
        if digest and not is_as_written(values):
            raise Mismatch("its content is not what was written (its digest differs)")
        return values, record
    except (ValueError, RecursionError) as error:
        raise _unusable(path, what, error) from None


def _unusable(path: Path, what: str, error: Exception) -> UserError:
    reason = f": {error}" if isinstance(error, Mismatch) else ""  # others say that it is not JSON
    return UserError(f"{path} is not {what}{reason}; remove it, or make it again")


Operations = Annotated[float, Meta(ge=0, le=1e30)]
Place = Annotated[int, Meta(ge=0, lt=MOST_TRIALS)]


class Trial(Struct):
    """One trial: its scores by rung in per cent, and when it ended in seconds since 1970."""

    number: Place
    state: Literal["running", "complete", "pruned", "failed", "waiting", "fail"]
    parameters: dict[Text, Any]
    scores: list[Number]
    operations: Operations
    seconds: Amount
    ended: Amount | None


class SearchFile(Struct):
    """``search.json``: ``operations`` of a run on each rung, and by trial the scores on ``test``."""

    format: Literal["mixskd-search-1"]
    operations: Annotated[list[Operations], Meta(min_length=1)]
    winner: Place | None
    tested: dict[Text, dict[Text, Any]]
    importance: dict[Text, Number]
    trials: Annotated[list[Trial], Meta(max_length=MOST_TRIALS)]
    task: Literal["multilabel"] | None = None


def read_search(path: Path) -> dict[str, Any]:
    """The content of search.json. Raises UserError, naming the file, for anything else."""
    return read_json(path, SearchFile, "the file of a search", digest=False)[0]
