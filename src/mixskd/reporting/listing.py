"""Methods, backbones, data sets, recipes, grids and suites, as rows of tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from mixskd.backbones import BACKBONES, build_backbone
from mixskd.backbones.from_timm import timm_of
from mixskd.config import grids, recipes
from mixskd.config.plugins import load_plugins
from mixskd.data import DATASETS
from mixskd.errors import UserError
from mixskd.evaluation.suites import SUITES
from mixskd.methods import METHODS, MixSKD

LIBRARY_ROWS = 30


def methods() -> list[dict[str, Any]]:
    """Each method in one sentence, with the cost of training."""
    load_plugins()
    rows = []
    for name, kind in METHODS.items():
        about = vars(kind).get("about")  # a plugin does not inherit it
        summary = (kind.__doc__ or "").splitlines()[0] if about is None else about.summary
        rows.append({"method": name, "in short": summary, "cost": "-" if about is None else about.cost})
    return rows


def backbones(num_classes: int = 100) -> list[dict[str, Any]]:
    """Each backbone with its parameters at ``num_classes`` classes: deployed, and in MixSKD's training graph.

    The discriminators are not counted, as in the paper.
    """
    load_plugins()
    rows = []
    for name in BACKBONES:
        with torch.device("meta"):
            backbone = build_backbone(name, num_classes)
            graph = MixSKD(backbone, discriminator="off")
        rows.append(
            {
                "backbone": name,
                "image size": backbone.default_size,
                "parameters": sum(p.numel() for p in backbone.parameters()),
                "in MixSKD's training graph": sum(p.numel() for p in graph.parameters()),
            }
        )
    return rows


def library_backbones(pattern: str) -> tuple[list[dict[str, Any]], int]:
    """The models of timm or torchvision that fit ``pattern``, such as ``timm/convnext*``: rows, and the number of
    further models.

    At most ``LIBRARY_ROWS`` are built, without weights. Raises UserError for a pattern without a match or a library.
    """
    library, _, rest = pattern.partition("/")
    if library == "timm":
        names = timm_of(pattern).list_models(rest or "*")
    elif library == "torchvision":
        from torchvision import models

        names = models.list_models(module=models, include=rest or "*")
    else:
        raise UserError(f"{pattern!r} is not a pattern of backbones; write 'timm/convnext*' or 'torchvision/swin*'")
    if not names:
        raise UserError(f"{library} has no model that fits {rest!r}; '*' stands for any letters")
    return [_library_row(f"{library}/{name}") for name in names[:LIBRARY_ROWS]], max(len(names) - LIBRARY_ROWS, 0)


def _library_row(name: str) -> dict[str, Any]:
    try:
        with torch.device("meta"):
            backbone = build_backbone(name, 1000)
    except UserError:
        return {"backbone": name, "image size": "-", "parameters": "-", "stages": "cannot be used"}
    stages = "none: methods without branches" if backbone.uncut else str(len(backbone.stages))
    count = sum(p.numel() for p in backbone.parameters())
    return {"backbone": name, "image size": backbone.default_size, "parameters": count, "stages": stages}


def datasets() -> list[dict[str, Any]]:
    """The data sets known by name."""
    return [{"data set": name, "contents": about} for name, about in DATASETS.items()]


def recipe_rows() -> list[dict[str, Any]]:
    """Each recipe with its description."""
    return [{"recipe": name, "description": recipes.description(name)} for name in recipes.names()]


def grid_rows() -> list[dict[str, Any]]:
    """Each named grid with its description."""
    return [{"grid": name, "description": grids.description(name)} for name in grids.names()]


def suites() -> list[dict[str, Any]]:
    """Each suite with its measure and the defaults of its options."""
    rows = []
    for name, suite in SUITES.items():
        fields = dataclasses.fields(suite)  # type: ignore[arg-type]
        options = ", ".join(f"{name}.{field.name} {_default(field.default)}" for field in fields)
        rows.append({"suite": name, "measures": suite.about, "options": options})
    return rows


def _default(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text or "(none)"


LISTINGS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": methods,
    "backbones": backbones,
    "datasets": datasets,
    "recipes": recipe_rows,
    "grids": grid_rows,
    "suites": suites,
}
