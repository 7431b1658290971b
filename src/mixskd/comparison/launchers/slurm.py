"""Runs as Slurm jobs, by submitit (Meta), which has a local mode as well."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixskd.comparison.worker import Worker
from mixskd.errors import UserError


class Slurm:
    """One job a run. ``options`` are those of submitit's ``update_parameters``, such as ``slurm_partition``,
    ``timeout_min``, ``gpus_per_node`` and ``cpus_per_task``, and ``cluster``: ``slurm``, or ``local`` for this machine.
    """

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("the slurm launcher needs submitit: pip install 'mixskd[slurm]'")
        import submitit

        options = dict(options)
        self.slots = jobs
        try:
            self.executor = submitit.AutoExecutor(folder / "logs" / "submitit", options.pop("cluster", "slurm"))
            self.executor.update_parameters(**{"name": "mixskd", **options})
        except (RuntimeError, ValueError, TypeError, NameError, AssertionError) as error:
            raise UserError(f"the slurm launcher: {str(error).splitlines()[0]}") from None
        self.jobs: list[submitit.Job[int]] = []

    def submit(self, folder: Path, name: str) -> Any:
        self.jobs.append(self.executor.submit(Requeued(), folder, name))
        return self.jobs[-1]

    def stop(self) -> None:
        for job in self.jobs:
            job.cancel(check=False)

    def close(self) -> None:
        pass


class Requeued:
    """A run as submitit takes it: at the time limit it is queued again, and goes on from its checkpoint."""

    def __call__(self, folder: Path, name: str) -> int:
        with Worker() as worker:
            return worker.run(folder, name)

    def checkpoint(self, folder: Path, name: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, name)
