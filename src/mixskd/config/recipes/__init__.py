"""Named experiments: a YAML file each, whose first lines say what it should reach and how long it takes."""

from importlib.resources import files
from typing import Any

import yaml

from mixskd.errors import unknown


def names() -> list[str]:
    """The recipes there are."""
    return sorted(f.name.removesuffix(".yaml") for f in files(__package__).iterdir() if f.name.endswith(".yaml"))


def load(name: str) -> dict[str, Any]:
    """The settings of recipe ``name``, a part of an experiment. Raises UserError for an unknown name."""
    values: dict[str, Any] = yaml.safe_load(_text(name))
    return values


def description(name: str) -> str:
    """The comment at the head of recipe ``name``: what it is, what to expect."""
    lines = []
    for line in _text(name).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _text(name: str) -> str:
    if name not in names():
        raise unknown("recipe", name, names())
    return (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")


def fitting(source: str | None, weights: str | None) -> str:
    """The recipe for the data set ``source`` (the digits if None), on a network that starts from ``weights`` or not.

    ``finetune`` is for photographs: it makes images of 224 px, which arrays do not become.
    """
    if source is None or source == "digits":
        return "digits"
    if source in ("cifar10", "cifar100"):
        return "cifar100"
    if source == "imagenet":
        return "imagenet"
    if source.endswith(".npz") or source == "synthetic":
        return "small_images"
    return "photos" if weights is None else "finetune"
