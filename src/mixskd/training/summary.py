"""The summary of a finished run: summary.json."""

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mixskd.config import Experiment
from mixskd.data.splits_file import division_digest
from mixskd.runtime.precision import device_name
from mixskd.runtime.version import __version__
from mixskd.training.memory import peak_memory
from mixskd.training.parts import Parts
from mixskd.training.position import Position
from mixskd.training.selection import Selection

FORMAT = "mixskd-summary-3"


def summarise(
    parts: Parts,
    position: Position,
    selection: Selection,
    deployed: Mapping[str, float],
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The summary of a run. ``deployed`` is the row of the deployed weights, and ``scores`` are theirs.

    ``scores`` are by split and metric. Those of other epochs are in their rows.
    """
    experiment, split = parts.experiment, parts.data.scored
    last, best = position.rows[-1], selection.best(position.rows)

    def of(row: Mapping[str, float]) -> dict[str, Any]:
        if row["epoch"] == deployed["epoch"]:
            row = {**row, **{f"{split}_{name}": value for name, value in scores[split].items()}}
        own = {name.removeprefix(f"{split}_"): row[name] for name in row if name in (f"{split}_top1", f"{split}_top5")}
        return {"epoch": row["epoch"], "split": split, **(own or {selection.monitor: row[selection.monitor]})}

    return {
        "format": FORMAT,
        "experiment": {"backbone": experiment.backbone, "method": experiment.method.name,
                       "data": experiment.data.source, "seed": experiment.run.seed},
        **({"task": name} if (name := getattr(parts.task, "name", "classification")) != "classification" else {}),
        "scores": scores,
        **({"probe": parts.probe} if parts.probe else {}),
        "deployed": {"epoch": deployed["epoch"], "selected_on": "val" if selection.keep_best else None},
        "last": of(last),
        "best": of(best),
        "epochs": len(position.rows),
        "stopped_early": len(position.rows) < experiment.run.epochs,
        "notes": [*parts.notes, *parts.step.notes],
        "updates": position.step,
        "images": position.images,
        "seconds": round(position.seconds, 1),
        "images_per_second": round(position.images / max(position.seconds, 1e-9), 1),
        "peak_memory_bytes": peak_memory(parts.device),
        "processes": parts.world.size,
        "precision": parts.step.engine.precision,
        "precision_reason": parts.step.engine.reason,
        "device": device_name(parts.device),
        "classes": len(parts.data.classes),
        "image_size": parts.data.image_size,
        "splits": {name: len(images) for name, images in parts.data.splits.items()},
        "splits_digest": division_digest(parts.data),
        "parameters": sum(p.numel() for p in parts.deployed.parameters()),
        "parameters_in_training": sum(p.numel() for p in parts.step.method.parameters()),
        **provenance(),
    }  # fmt: skip


def summarise_untrained(
    experiment: Experiment,
    scored: str,
    scores: Mapping[str, Mapping[str, float]],
    device: torch.device,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """The summary of a model that was made without training, whose ``scores`` are by split and metric.

    ``scored`` is the split that a training run would score each epoch on; ``more`` are further values of the summary.
    """
    own = scores[scored]
    at = {"epoch": 0, "split": scored, **({k: own[k] for k in ("top1", "top5") if k in own} or own)}
    return {
        "format": FORMAT,
        "experiment": {"backbone": experiment.backbone, "method": experiment.method.name,
                       "data": experiment.data.source, "seed": experiment.run.seed},
        "scores": scores,
        "deployed": {"epoch": 0, "selected_on": None},
        "last": at, "best": at, "epochs": 0, "stopped_early": False,
        "updates": 0, "images": 0, "seconds": round(seconds, 1), "images_per_second": 0.0, "processes": 1,
        "precision": "fp32", "precision_reason": "nothing is trained", "device": device_name(device),
        "parameters_in_training": 0,
        **more,
        **provenance(),
    }  # fmt: skip


def provenance() -> dict[str, Any]:
    """Versions, processor and the git commit of the source, for a summary; the commit is null outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # A checkout that does not track this file belongs to another project.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "mixskd": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "commit": commit,
    }
