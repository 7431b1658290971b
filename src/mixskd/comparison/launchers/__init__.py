"""Launchers train the runs of a grid: on this machine, or as jobs of a cluster that shares the folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mixskd.comparison.launchers.local import Local
from mixskd.comparison.launchers.ray import Ray
from mixskd.comparison.launchers.slurm import Slurm
from mixskd.errors import UserError, unknown


class Job(Protocol):
    """A submitted run: a future of its exit code."""

    def done(self) -> bool: ...

    def result(self) -> int: ...


class Launcher(Protocol):
    """Trains up to ``slots`` runs at a time (any number if None)."""

    slots: int | None

    def submit(self, folder: Path, name: str) -> Job:
        """Start run ``name`` of ``folder``."""
        ...

    def stop(self) -> None:
        """Let all runs save themselves and stop."""
        ...

    def close(self) -> None:
        """Release processes and connections after the last run."""
        ...


# Each is made from the folder of the grid, ``jobs``, ``devices`` and the launcher's own options.
LAUNCHERS: dict[str, Callable[[Path, int | None, str, Mapping[str, Any]], Launcher]] = {
    "local": Local,
    "slurm": Slurm,
    "ray": Ray,
}


def check_launcher(name: str, jobs: int | None) -> None:
    """Raises UserError for an unknown launcher, and for fewer ``jobs`` than 1."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs must be 1 or more, not {jobs}")
