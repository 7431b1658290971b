"""The values of the paper's Tables 1 to 3 and, for methods that it lacks, of the README of the released code."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
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
