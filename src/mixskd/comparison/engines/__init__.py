"""Where the runs of a grid are carried out: on this machine, or as jobs of a cluster that shares the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mixskd.comparison.engines.local import Local
from mixskd.comparison.engines.ray import Ray
from mixskd.comparison.engines.slurm import Slurm


class Task(Protocol):
    """A run under way; a Future of its exit code."""

    def done(self) -> bool: ...

    def result(self) -> int: ...


class Engine(Protocol):
    """Carries out up to ``slots`` runs at a time (any number if None)."""

    slots: int | None

    def submit(self, folder: Path, name: str) -> Task:
        """Begin run ``name`` of ``folder``."""
        ...

    def stop(self) -> None:
        """Have all runs save themselves and stop."""
        ...

    def close(self) -> None:
        """Let go of what the engine holds, after the last run."""
        ...


# Each is made from the folder of the grid, ``jobs``, ``devices`` and the engine's own options.
ENGINES: dict[str, Callable[[Path, int | None, str, Mapping[str, Any]], Engine]] = {
    "local": Local,
    "slurm": Slurm,
    "ray": Ray,
}
