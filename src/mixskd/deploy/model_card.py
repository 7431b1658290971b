"""The model card of a classifier: Markdown with the front matter of a model hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mixskd.artifacts.model_file import Classifier
from mixskd.artifacts.results import Result, read_result
from mixskd.errors.text import safe

MOST_CLASSES = 1000  # that a card names


def model_card(model: Classifier, path: Path, repository: str | None) -> str:
    """The card of ``model``, which was read from ``path``; a run's folder adds its method, data and scores."""
    run = read_result(path) if (path / "summary.json").is_file() else None
    name = (repository or (path.resolve().name if path.is_dir() else path.stem)).rpartition("/")[2]
    front = {
        "library_name": "mixskd",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "mixskd", *([run.experiment.method.name] if run else [])],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {_text(name)}\n",
        _about(model, run),
        *([_scores(run.summary)] if run and "scores" in run.summary else []),
        _use(model, repository),
        _classes(model),
    ]
    return "\n".join(parts)


def _about(model: Classifier, run: Result | None) -> str:
    rows: dict[str, str] = {"backbone": model.name}
    if run is not None:
        e = run.experiment
        rows |= {
            "method": e.method.name,
            "data": Path(e.data.source).name,
            "epochs": f"{run.summary['epochs']}" if "epochs" in run.summary else f"{e.run.epochs}",
            "seed": f"{e.run.seed}",
        }
        if e.weights:
            rows["started from"] = Path(e.weights).name
    rows |= {
        "classes": f"{len(model.classes)}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "image size": f"{model.image_size} px",
    }
    lines = [f"| {key} | {_text(value)} |" for key, value in rows.items()]
    return "An image classifier that was trained with mixskd.\n\n| | |\n|---|---|\n" + "\n".join(lines) + "\n"


def _scores(summary: Mapping[str, Any]) -> str:
    scores: Mapping[str, Mapping[str, float]] = summary["scores"]
    names = [name for name in ("top1", "top5", "loss") if any(name in values for values in scores.values())]
    heads = {"top1": "top-1 (%)", "top5": "top-5 (%)", "loss": "loss"}
    lines = [f"| split | images | {' | '.join(heads[name] for name in names)} |", "|---|" + "---:|" * (1 + len(names))]
    for split, values in scores.items():
        cells = [
            f"{values[name]:.{4 if name == 'loss' else 2}f}" if values.get(name) is not None else "" for name in names
        ]
        lines.append(f"| {_text(split)} | {summary.get('splits', {}).get(split, '')} | {' | '.join(cells)} |")
    selected = summary.get("deployed", {}).get("selected_on")
    which = f"the best epoch on {_text(selected)}" if selected else "the last epoch"
    return "## Scores\n\n" + "\n".join(lines) + f"\n\nThe weights are those of {which}.\n"


def _use(model: Classifier, repository: str | None) -> str:
    p = model.preprocess
    if p.resize == "squash":
        how = f"resized to {p.image_size} x {p.image_size}"
    elif p.resize == "pad":
        how = f"resized to {p.image_size} pixels on its long side, padded with the mean to a square"
    else:
        how = (
            f"resized to {p.resized} pixels on its short side and cropped to the {p.image_size} x {p.image_size} centre"
        )
    place, lines = '"model.safetensors"', ["import mixskd"]
    if repository is not None:
        lines.append("from huggingface_hub import hf_hub_download")
        place = f'hf_hub_download({json.dumps(repository)}, "model.safetensors")'
    lines += [
        "",
        f"path = {place}",
        'predictions = mixskd.predict(path, ["photo.jpg"])  # the likeliest classes of each image',
        "model = mixskd.load(path)  # a torch module: normalised images to logits",
    ]
    text = "## How to use it\n\n```python\n" + "\n".join(lines) + "\n```\n\n"
    text += (
        f"An image of {p.channels} channel{'s' * (p.channels > 1)} is {how} (bilinear, antialiased), brought from "
        f"{' to '.join(f'{v:g}' for v in p.range or (0, 255))} to [0, 1], and normalised by mean "
        f"{', '.join(f'{v:g}' for v in p.mean)} and standard deviation {', '.join(f'{v:g}' for v in p.std)}. "
        "`preprocess.json` holds the same, with the names of the classes.\n"
    )
    if model.temperature is not None:
        text += (
            f"\n`predict` divides the logits by {model.temperature:.4g} and names no class below a probability of "
            f"{model.threshold or 0:.4g}. Both were fitted on a validation split.\n"
        )
    return text


def _classes(model: Classifier) -> str:
    lines = [f"{index}. {_text(name)}" for index, name in enumerate(model.classes[:MOST_CLASSES])]
    if len(model.classes) > MOST_CLASSES:
        lines.append(f"\nand {len(model.classes) - MOST_CLASSES} more, in `preprocess.json`.")
    return "## Classes\n\n" + "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return safe(value, "markdown")
