"""Rows of ``mixskd list``: methods, backbones, data sets, recipes, grids and suites.

Those of our own methods, backbones, data sets and suites are stored in ``listings.json``, so that no torch is imported
to show them. ``python -m mixskd.reporting.listing`` writes that file anew from the classes.
"""

import dataclasses
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixskd.config import grids, recipes
from mixskd.config.plugins import has_plugins, load_plugins
from mixskd.config.registry import METHODS
from mixskd.errors import UserError

LIBRARY_ROWS = 30
Rows = list[dict[str, Any]]


def stored(kind: str) -> Rows:
    """The stored rows of a ``kind``: ``methods``, ``backbones``, ``datasets`` or ``suites``."""
    rows: Rows = json.loads((files(__package__) / "listings.json").read_text(encoding="utf-8"))[kind]
    return rows


def methods() -> Rows:
    """Each method in one sentence, with the cost of training. The methods of plugins are imported."""
    load_plugins()
    rows = {row["method"]: row for row in stored("methods")}
    return [rows.get(name) or method_row(name) for name in METHODS]


def method_row(name: str) -> dict[str, Any]:
    """The row of one method, from its class."""
    kind = METHODS[name]
    about = vars(kind).get("about")  # a plugin does not inherit it
    summary = (kind.__doc__ or "").splitlines()[0] if about is None else about.summary
    return {"method": name, "in short": summary, "cost": "-" if about is None else about.cost}


def backbones() -> Rows:
    """Each backbone with its parameters at 100 classes. Those of plugins are imported, and torch with them."""
    rows = {row["backbone"]: row for row in stored("backbones")}
    if not has_plugins():
        return list(rows.values())
    load_plugins()
    from mixskd.backbones import BACKBONES

    return [rows.get(name) or backbone_row(name) for name in BACKBONES]


def backbone_row(name: str) -> dict[str, Any]:
    """The row of one backbone: its parameters deployed, and in MixSKD's training graph, without the discriminators, as
    the paper counts them.
    """
    import torch

    from mixskd.backbones import build_backbone
    from mixskd.methods import MixSKD

    with torch.device("meta"):
        backbone = build_backbone(name, 100)
        graph = MixSKD(backbone, discriminator="off")
    deployed, trained = (sum(p.numel() for p in module.parameters()) for module in (backbone, graph))
    return {"backbone": name, "image size": backbone.default_size, "parameters": deployed,
            "in MixSKD's training graph": trained}  # fmt: skip


def library_backbones(pattern: str) -> tuple[Rows, int]:
    """The models of timm or torchvision that fit ``pattern``, such as ``timm/convnext*``: rows, and the number of
    further models.

    At most ``LIBRARY_ROWS`` are built, without weights. Raises UserError for a pattern without a match or a library.
    """
    library, _, rest = pattern.partition("/")
    if library == "timm":
        from mixskd.backbones.from_timm import timm_of

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
    import torch

    from mixskd.backbones import build_backbone

    try:
        with torch.device("meta"):
            backbone = build_backbone(name, 1000)
    except UserError:
        return {"backbone": name, "image size": "-", "parameters": "-", "stages": "cannot be used"}
    stages = "none: methods without branches" if backbone.uncut else str(len(backbone.stages))
    count = sum(p.numel() for p in backbone.parameters())
    return {"backbone": name, "image size": backbone.default_size, "parameters": count, "stages": stages}


def suite_rows() -> Rows:
    """Each suite with its measure and the defaults of its options."""
    from mixskd.evaluation.suites import SUITES

    rows = []
    for name, suite in SUITES.items():
        fields = dataclasses.fields(suite)
        options = ", ".join(f"{name}.{field.name} {_default(field.default)}" for field in fields)
        rows.append({"suite": name, "measures": suite.about, "options": options})
    return rows


def _default(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text or "(none)"


LISTINGS: dict[str, Callable[[], Rows]] = {
    "methods": methods,
    "backbones": backbones,
    "datasets": lambda: stored("datasets"),
    "recipes": lambda: [{"recipe": name, "description": recipes.description(name)} for name in recipes.names()],
    "grids": lambda: [{"grid": name, "description": grids.description(name)} for name in grids.names()],
    "suites": lambda: stored("suites"),
}


def to_store() -> str:
    """The text of ``listings.json``, from the classes. Methods and backbones of plugins are left out."""
    from mixskd.backbones import BACKBONES
    from mixskd.data import DATASETS

    datasets = [{"data set": name, "contents": about} for name, about in DATASETS.items()]
    own = [name for name in METHODS if METHODS[name].__module__.startswith("mixskd.")]
    nets = [name for name, make in BACKBONES.items() if getattr(make, "func", make).__module__.startswith("mixskd.")]
    rows = {"methods": [method_row(name) for name in own], "backbones": [backbone_row(name) for name in nets],
            "datasets": datasets, "suites": suite_rows()}  # fmt: skip
    return json.dumps(rows, indent=1) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("listings.json").write_text(to_store(), encoding="utf-8")
