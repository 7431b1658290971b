"""Runs as Slurm jobs, by submitit (Meta), which has a local mode as well."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixskd.comparison.worker import TRY_AGAIN, Worker
from mixskd.config.conversion import convert
from mixskd.config.types import Count, Positive, Settings, WholeNumber
from mixskd.errors import UserError, first_line, nearest
from mixskd.runtime.packages import needed

SUBMITIT_OPTIONS = (
    "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout", "name",
)  # fmt: skip
# States of a job that ended for a reason outside the run. FINISHED and INTERRUPTED are those of submitit's local mode.
LOST = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REQUEUED", "COMPLETED", "UNKNOWN", "FINISHED", "INTERRUPTED")
MOST_IDLE_JOBS = 3  # of one run in a row, each without a new checkpoint
STOPPED = 128 + signal.SIGTERM  # the exit code of a run that saved itself when Slurm warned it


@dataclass(frozen=True)
class SlurmSettings(Settings, prefix="launcher."):
    """What each job asks of Slurm.

    Args:
        time_limit: of a job: minutes, HH:MM:SS or D-HH:MM:SS. At the limit the run saves itself and is queued again.
        partition: the partition; the cluster's default if empty.
        account: the account that is charged; the user's default if empty.
        qos: the quality of service; the default if empty.
        memory_gb: memory of a job in GB; the partition's default if not given.
        gpus: GPUs of a job; 0 for none.
        cpus: processor cores of a job.
        save_seconds: how long before the time limit Slurm warns the run, so that it can save itself.
        cluster: ``slurm``, or ``local`` for processes on this machine.
    """

    time_limit: str = "4:00:00"
    partition: str = ""
    account: str = ""
    qos: str = ""
    memory_gb: Positive | None = None
    gpus: WholeNumber = 1
    cpus: Count = 4
    save_seconds: Count = 120
    cluster: Literal["slurm", "local"] = "slurm"

    def parameters(self) -> dict[str, Any]:
        """The arguments of submitit's ``update_parameters``."""
        named = {name: getattr(self, name) for name in ("partition", "account", "qos")}
        return {
            "name": "mixskd",
            "timeout_min": minutes(self.time_limit),
            "mem_gb": self.memory_gb,
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            "slurm_signal_delay_s": self.save_seconds,
            **{f"slurm_{name}": value for name, value in named.items() if value},
        }


def minutes(text: str) -> int:
    """A time limit in whole minutes, from minutes, ``HH:MM:SS`` or ``D-HH:MM:SS``; seconds are rounded up."""
    match = re.fullmatch(r"(\d+)|(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text.strip())
    if match is None:
        raise UserError(f"launcher.time_limit must be minutes, HH:MM:SS or D-HH:MM:SS, not {text!r}")
    whole, days, hours, mins, seconds = (int(part or 0) for part in match.groups())
    total = whole + 1440 * days + 60 * hours + mins + (seconds > 0)
    if total < 1:
        raise UserError("launcher.time_limit must be 1 minute or more")
    return total


class Slurm:
    """One job a run, as :class:`SlurmSettings` describes it.

    ``options`` are its fields, and those of submitit's ``update_parameters`` (``slurm_constraint``), which override
    them. ``jobs`` limits how many jobs are submitted at a time.
    """

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        submitit = needed("submitit", "slurm")
        fields = [field.name for field in dataclasses.fields(SlurmSettings)]
        own = {key: str(value) for key, value in options.items() if key in fields}
        others = {key: value for key, value in options.items() if key not in fields}
        for key in others:
            if key not in SUBMITIT_OPTIONS and not key.startswith(("slurm_", "local_")):
                raise UserError(f"the slurm launcher has no option {key!r}{nearest(key, [*fields, *SUBMITIT_OPTIONS])}")
        settings: SlurmSettings = convert(own, SlurmSettings, "launcher")
        self.slots = jobs
        self.jobs: list[SlurmRun] = []
        # A run may reach its time limit any number of times: it continues each time.
        timeouts = {"slurm_max_num_timeout": 10**6, "local_max_num_timeout": 10**6}
        try:
            executor = submitit.AutoExecutor(folder / "logs" / "submitit", settings.cluster, **timeouts)
            executor.update_parameters(**{**settings.parameters(), **others})
        except (RuntimeError, ValueError, TypeError, NameError, AssertionError) as error:
            raise UserError(f"the slurm launcher: {first_line(error)}") from None
        self.executor = executor
        self.idle: dict[str, int] = {}  # by a run's name: its last jobs in a row without a new checkpoint

    def submit(self, folder: Path, name: str) -> SlurmRun:
        run = SlurmRun(self.executor.submit(Requeued(), folder, name), folder / name, self.idle)
        self.jobs.append(run)
        return run

    def stop(self) -> None:
        for run in self.jobs:
            run.job.cancel(check=False)

    def close(self) -> None:
        pass


@dataclass
class SlurmRun:
    """A run as a job: it is tried again if the job was preempted, timed out or lost with its node."""

    job: Any
    folder: Path
    idle: dict[str, int]

    def __post_init__(self) -> None:
        self.before = self._saved()

    def done(self) -> bool:
        return bool(self.job.done())

    def result(self) -> int:
        """The exit code of the run; ``TRY_AGAIN`` if only its job ended. Raises UserError if the job is of no use."""
        from submitit.core.utils import UncompletedJobError

        try:
            code: int = self.job.result()
        except UncompletedJobError:
            state = str(self.job.state)
            if not state.startswith(LOST):
                raise UserError(f"Slurm ended the job: {state}; see {self.log}") from None
        else:
            if code != STOPPED:
                return code
            state = "stopped by SIGTERM"
        name = self.folder.name
        self.idle[name] = idle = self.idle.get(name, 0) + 1 if self._saved() == self.before else 0
        if idle >= MOST_IDLE_JOBS:
            raise UserError(
                f"{idle} jobs in a row ended without a new checkpoint (the last: {state}); give them more time with "
                f"--launcher.time_limit or --launcher.save_seconds; see {self.log}"
            )
        return TRY_AGAIN

    @property
    def log(self) -> Path:
        """What the job wrote outside the run's own log."""
        return Path(self.job.paths.stderr)

    def _saved(self) -> int:
        """When the run last saved itself."""
        checkpoint = self.folder / "checkpoint.pt"
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


class Requeued:
    """A run as submitit calls it: at the time limit it saves itself, is queued again and resumes."""

    worker: Worker | None = None

    def __call__(self, folder: Path, name: str) -> int:
        with Worker() as self.worker:
            return self.worker.run(folder, name)

    def checkpoint(self, folder: Path, name: str) -> Any:
        """Wait until the run has saved itself: Slurm kills what is left when it queues the job again."""
        from submitit.helpers import DelayedSubmission

        if self.worker is not None:
            self.worker.stop()
            self.worker.process.wait()
        return DelayedSubmission(Requeued(), folder, name)
