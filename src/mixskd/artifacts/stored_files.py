"""What finished runs have left in their folders, examined before a table or a report is made from it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixskd.config import read_yaml
from mixskd.config.schema import Check, Mismatch, anything, integer, items, number, optional, record, string, table
from mixskd.data.bundle import LARGEST_IMAGE, MOST_CLASSES
from mixskd.errors import UserError

LARGEST = 1e15  # of a figure, so that sums and squares of figures are finite
LARGEST_FILE = 2**28  # bytes


def figure(value: Any, where: str) -> None:
    """A number of a size that can be computed with."""
    number(-LARGEST)(value, where)
    if value > LARGEST:
        raise Mismatch(f"{where} must be at most {LARGEST:g}, not {value:g}")


def count(value: Any, where: str) -> None:
    """How many there are of something."""
    figure(value, where)
    number(0)(value, where)


BEST = record({"epoch": figure}, {"split": string(), "top1": figure})
SUMMARY = record(
    {"updates": count, "images": count, "images_per_second": count, "seconds": count, "threads": count,
     "device": string(), "precision": string()},
    {"scores": table(table(optional(figure))), "best": BEST, "best_on_test": BEST, "last": BEST,
     "deployed": record({"epoch": figure}), "notes": items(string(100_000)), "parameters": count,
     "classes": optional(integer(2, MOST_CLASSES)), "image_size": optional(integer(1, LARGEST_IMAGE))},
)  # fmt: skip

ATTACK = record({"clean_top1": figure, "protocol": table(anything),
                 "attacks": items(record({"epsilon": count, "top1": figure}), 1)})  # fmt: skip
PLACES = items(figure, 1)
HISTOGRAM = record({"mean": figure, "counts": PLACES, "edges": PLACES})
BINS = items(record({"images": count, "confidence": optional(figure), "accuracy": optional(figure)}))
RELIABLE = record({"ece": figure, "reliability": BINS})
SHIFT = record({"auroc": figure, "fpr95": figure})
MISTAKE = record(
    {"index": integer(0), "label": string(), "predicted": string(), "label_probability": figure,
     "predicted_probability": figure},
    {"path": optional(string())},
)  # fmt: skip
SUITES: dict[str, Check] = {
    "accuracy": record({
        "confusion": items(PLACES, 1),
        "classes": items(record({"name": string(), "recall": figure, "precision": figure, "f1": figure,
                                 "images": count}), 1)}),
    "calibration": record({
        "whole": record({"ece": figure, "adaptive_ece": figure, "brier": figure, "nll": figure, "reliability": BINS}),
        "before": RELIABLE, "after": RELIABLE, "temperature": figure, "fitted_on": string()}),
    "confidence": record({
        "shared_mistakes": count, "models": table(record({"predicted": HISTOGRAM, "true": HISTOGRAM}))}),
    "corruption": record({
        "clean_error": figure, "mean_corruption_error": figure, "protocol": record({"severities": PLACES}),
        "corruptions": table(record({"error": figure, "by_severity": PLACES}))}),
    "errors": record({
        "number_of_mistakes": count, "mistakes": items(MISTAKE),
        "pairs": items(record({"label": string(), "predicted": string(), "images": count, "share_of_label": figure})),
        "number_of_suspects": count, "suspects": items(MISTAKE)}),
    "features": record({
        "trained_on": string(), "train_images": count, "feature_dim": count, "knn_top1": figure, "linear_top1": figure,
        "converged": anything}),
    "fgsm": ATTACK,
    "linearity": record({"curve": items(record({"lambda": figure, "miss_rate": figure, "mass": figure}), 1)}),
    "ood": record({"other_data": string(), "other_images": count, "max_softmax": SHIFT, "energy": SHIFT}),
    "pgd": ATTACK,
}  # fmt: skip
HEADLINE = record({"headline": record({"name": string(), "value": figure})})
RESULT = record({"images": count, "split": string()})
NAMES = items(string())
GRID = record({}, {"suites": optional(NAMES), "paper_table": optional(string()), "equal_cost": optional(string())})


def read_summary(path: Path, *, classifier: bool = True) -> dict[str, Any]:
    """The summary of a run. Raises UserError, naming the file, for one that does not have the parts of a summary."""

    def check(value: Any, where: str) -> None:
        SUMMARY(value, where)
        key = next((key for key in ("test", "val") if key in value.get("scores", {})), None)
        if key is None and ("scores" in value or not classifier):
            raise Mismatch("scores lacks test and val")
        if classifier:
            scores = value.get("last", {}) if key is None else value["scores"][key]
            record({"top1": figure})(scores, "last" if key is None else f"scores.{key}")
            best = "best" if "best" in value else "best_on_test"
            record({"top1": figure})(value.get(best, {}), best)
            if best == "best":
                record({"split": string()})(value[best], best)
            if "classes" not in value or value["classes"] is None:
                record({"parameters": count})(value, "")
        else:
            record({"deployed": anything})(value, "")

    return _read(path, check, "not the summary of a run")


def read_suite(path: Path, name: str) -> dict[str, Any]:
    """The result of the evaluation suite ``name``. Raises UserError, naming the file, for anything else."""

    def check(value: Any, where: str) -> None:
        HEADLINE(value, where)
        RESULT(value, where)
        SUITES[name](value, where)
        FITS.get(name, lambda _: None)(value)

    return _read(path, check, f"not a result of the suite {name}")


def read_headline(path: Path, name: str) -> dict[str, Any]:
    """The headline of a result of the suite ``name``: its ``name`` and ``value``. Raises UserError, naming the file."""
    found: dict[str, Any] = _read(path, HEADLINE, f"not a result of the suite {name}")["headline"]
    return found


def read_grid(path: Path) -> Mapping[str, Any]:
    """The ``grid.yaml`` of a comparison, empty if there is none. Raises UserError, naming the file."""
    if not path.exists():
        return {}
    grid = read_yaml(path)
    try:
        GRID(grid, "")
        methods = grid.get("methods") or {}
        NAMES(list(methods) if isinstance(methods, Mapping) else methods, "methods")
    except Mismatch as error:
        raise UserError(f"{path} is not a grid of mixskd: {error}; remove it") from None
    return {**grid, "methods": methods, "suites": grid.get("suites") or ()}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's ``metrics.csv``. Raises UserError, naming the file, if it is no table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of a run's metrics ({error}); remove it") from None


def _read(path: Path, check: Check, otherwise: str) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise Mismatch("it does not exist, or it is not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Mismatch(f"it has more than {LARGEST_FILE:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        check(value, "")
    except (ValueError, RecursionError) as error:  # Mismatch, and what is no JSON
        reason = f": {error}" if isinstance(error, Mismatch) else ""
        raise UserError(f"{path} is {otherwise}{reason}; remove it, or make it again") from None
    found: dict[str, Any] = value
    return found


def _accuracy(value: dict[str, Any]) -> None:
    classes = len(value["classes"])
    if len(value["confusion"]) != classes or any(len(row) != classes for row in value["confusion"]):
        raise Mismatch(f"confusion must have {classes} rows and columns, as there are classes")


def _calibration(value: dict[str, Any]) -> None:
    for part in ("whole", "before", "after"):
        if any(b["images"] and None in (b["confidence"], b["accuracy"]) for b in value[part]["reliability"]):
            raise Mismatch(f"{part}.reliability has a bin with images without their accuracy")


def _confidence(value: dict[str, Any]) -> None:
    for name, model in value["models"].items():
        for which in ("predicted", "true"):
            if len(model[which]["edges"]) != len(model[which]["counts"]) + 1:
                raise Mismatch(f"models.{name}.{which} must have one edge more than counts")


def _corruption(value: dict[str, Any]) -> None:
    severities = len(value["protocol"]["severities"])
    if not value["corruptions"] or any(len(c["by_severity"]) != severities for c in value["corruptions"].values()):
        raise Mismatch(f"corruptions must have {severities} errors each, as there are severities")


FITS = {"accuracy": _accuracy, "calibration": _calibration, "confidence": _confidence, "corruption": _corruption}
