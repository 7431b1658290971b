"""Named grids of ablations: a YAML file each, whose first lines say what it compares."""

from importlib.resources import files
from typing import Any

import yaml

from mixskd.errors import unknown


def names() -> list[str]:
    """The grids there are."""
    return sorted(f.name.removesuffix(".yaml") for f in files(__package__).iterdir() if f.name.endswith(".yaml"))


def load(name: str) -> dict[str, Any]:
    """The values of grid ``name``, as :func:`mixskd.comparison.grid.grid_from` takes them.

    Raises UserError for an unknown name.
    """
    values: dict[str, Any] = yaml.safe_load(_text(name))
    return values


def description(name: str) -> str:
    """The comment at the head of grid ``name``."""
    lines = [line for line in _text(name).splitlines() if line.startswith("#")]
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _text(name: str) -> str:
    if name not in names():
        raise unknown("grid", name, names())
    return (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
