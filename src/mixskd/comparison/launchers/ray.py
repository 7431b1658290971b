"""Runs as tasks of Ray, on a cluster or on this machine."""

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mixskd.comparison.worker import Worker
from mixskd.errors import UserError, first_line
from mixskd.runtime.packages import needed


class Ray:
    """One task per run. ``options`` are those of ``ray.remote``, such as ``num_gpus`` and ``num_cpus``, and ``address``
    of a cluster (``auto`` for that of this machine); without it Ray is started here.
    """

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        ray, options = needed("ray", "ray"), dict(options)
        self.ray, self.slots = ray, jobs
        address = options.pop("address", None)
        try:
            self.own = not ray.is_initialized()
            if self.own:
                ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
            self.task = ray.remote(**{"max_retries": 0, "num_cpus": 1, **options})(run_alone)
        except (ConnectionError, ValueError, TypeError) as error:
            raise UserError(f"the ray launcher: {first_line(error)}") from None
        self.references: list[Any] = []

    def submit(self, folder: Path, name: str) -> Future[int]:
        self.references.append(self.task.remote(Path.cwd(), folder, name))
        return self.references[-1].future()

    def stop(self) -> None:
        for reference in self.references:
            self.ray.cancel(reference)

    def close(self) -> None:
        if self.own:
            self.ray.shutdown()


def run_alone(directory: Path, folder: Path, name: str) -> int:
    """Train a run in a new worker that starts in ``directory``; returns the exit code."""
    with Worker(directory=directory) as worker:
        return worker.run(folder, name)
