"""The values of the second half of the paper's Table 3: transfer to detection and segmentation."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.config.task_kinds import Kind

TABLE = "Table 3"
# Usual names of the folder of a data set, in lower case without punctuation -> its name in the JSON file.
DATA = {
    "coco": "coco", "coco2017": "coco", "voc": "voc", "voc2012": "voc", "vocaug": "voc", "ade20k": "ade20k",
    "adechallengedata2016": "ade20k", "cocostuff": "coco_stuff", "cocostuff164k": "coco_stuff",
}  # fmt: skip


@cache
def rows() -> list[dict[str, Any]]:
    """One for each data set and method: ``data``, ``network``, ``backbone``, ``method``, ``score``, ``value``."""
    found: list[dict[str, Any]] = json.loads((files(__package__) / "transfer.json").read_text("utf-8"))
    return found


def data_of(experiment: Experiment) -> str | None:
    """The data set of the paper on which ``experiment`` is trained, by the name of its folder; None for others."""
    name = Path(experiment.data.source).name.lower()
    return DATA.get("".join(c for c in name if c.isalnum()))


def published_transfer(experiment: Experiment, origin: Experiment | None) -> float | None:
    """The value of the paper for this network and data, from a backbone trained as ``origin`` on ImageNet."""
    if origin is None or Path(origin.data.source).name != "imagenet":
        return None
    place = data_of(experiment), experiment.method.name, experiment.backbone, origin.method.name
    return next((r["value"] for r in rows() if (r["data"], r["network"], r["backbone"], r["method"]) == place), None)


def beside(kind: Kind, experiment: Experiment) -> tuple[str, str]:
    """The data set and backbone of the paper to compare ``experiment`` with.

    They are its own data if the paper has them, else the first of its ``kind``.
    """
    fitting = [r for r in rows() if r["score"] == kind.monitor]
    own = data_of(experiment)
    chosen = next((r for r in fitting if r["data"] == own), fitting[0])
    return chosen["data"], chosen["backbone"]


def value_beside(kind: Kind, data: str, origin: Experiment | None) -> float | None:
    """The value of the paper on ``data`` for a backbone trained by the method of ``origin``, or None."""
    if origin is None:
        return None
    wanted = data, kind.monitor, origin.method.name
    return next((r["value"] for r in rows() if (r["data"], r["score"], r["method"]) == wanted), None)
