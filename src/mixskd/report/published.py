"""The values of the paper's Tables 1 to 5 and, for methods that it lacks, of the README of the released code."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.errors import unknown
from mixskd.methods import make_config, method_class

EPOCHS = {"imagenet": 305}  # 205 elsewhere


@dataclasses.dataclass(frozen=True)
class Published:
    """Top-1 in per cent, with the standard deviation of three runs where it is printed."""

    top1: float
    std: float | None
    source: str
    epochs: int


@cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((files(__package__) / "published.json").read_text(encoding="utf-8"))
    return rows


def published(experiment: Experiment) -> Published | None:
    """What is published for this data set (its file may be called so), backbone, policy and method, if anything.

    A method with other hyper-parameters than the published run's has none, nor has a run that starts from weights.
    """
    if experiment.weights is not None:
        return None
    kind = method_class(experiment.method.name)
    data = Path(experiment.data.source).stem
    own = make_config(kind.Config, experiment.method.options)
    for row in _rows():
        place = row["data"], row["backbone"], row["method"], row["augment"]
        if place != (data, experiment.backbone, experiment.method.name, experiment.data.augment):
            continue
        if own == make_config(kind.Config, row.get("options", {})):
            return Published(row["top1"], row["std"], row["source"], EPOCHS.get(data, 205))
    return None


def published_in(table: str, experiment: Experiment) -> Published | None:
    """What ``table`` of the paper prints for this method with these switches, on whatever data and backbone it has.

    ``alpha`` is not compared, since the paper chooses it by the data set.
    """
    kind = method_class(experiment.method.name)
    own = dict(experiment.method.options)
    own.pop("alpha", None)
    for row in _rows():
        if (row["source"], row["method"]) != (table, experiment.method.name):
            continue
        options = {key: value for key, value in row.get("options", {}).items() if key != "alpha"}
        if make_config(kind.Config, own) == make_config(kind.Config, options):
            return Published(row["top1"], row["std"], row["source"], EPOCHS.get(row["data"], 205))
    return None


def place_of(table: str) -> str:
    """The data set and backbone of ``table``, as ``imagenet, resnet50``. Raises UserError if there is no such table."""
    for row in _rows():
        if row["source"] == table:
            return f"{row['data']}, {row['backbone']}"
    raise unknown("table of the paper", table, {row["source"] for row in _rows()})
