"""Runs on this machine, in workers that share its GPUs and processor threads."""

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mixskd.comparison.worker import Worker
from mixskd.errors import UserError
from mixskd.runtime.distributed import usable_cores

MOST_CPU_JOBS = 8  # by default one run per core, but no more than this, since memory is limited


class Place:
    """A slot for one run at a time: the environment of its worker, which is started on first use."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.worker: Worker | None = None

    def run(self, folder: Path, name: str) -> int:
        """Train a run in the worker, or in a new one if that has died; returns the exit code."""
        if self.worker is None or self.worker.process.poll() is not None:
            self.worker = Worker(self.environment)
        return self.worker.run(folder, name)


class Local:
    """``jobs`` runs at a time on ``devices`` (``auto``, ``cpu``, or GPUs such as ``0,1``)."""

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        if options:
            raise UserError(f"the local launcher has no option {next(iter(options))!r}; see --jobs and --devices")
        gpus, cores = visible_gpus(devices), usable_cores()
        self.slots: int | None = (slots := jobs or len(gpus) or min(cores, MOST_CPU_JOBS))
        # A number of threads that the user has set is kept.
        shared = {"OMP_NUM_THREADS": str(max(1, cores // slots)), **os.environ}
        self.places = [
            Place({**shared, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)] if gpus else ""}) for job in range(slots)
        ]
        self.free: SimpleQueue[Place] = SimpleQueue()
        for place in self.places:
            self.free.put(place)
        self.threads = ThreadPoolExecutor(slots)

    def submit(self, folder: Path, name: str) -> Future[int]:
        return self.threads.submit(self._run, folder, name)

    def _run(self, folder: Path, name: str) -> int:
        place = self.free.get()
        try:
            return place.run(folder, name)
        finally:
            self.free.put(place)

    def stop(self) -> None:
        for place in self.places:
            if place.worker is not None:
                place.worker.stop()

    def close(self) -> None:
        self.stop()
        self.threads.shutdown()
        for place in self.places:
            if place.worker is not None:
                place.worker.__exit__(None, None, None)


def visible_gpus(devices: str) -> list[str]:
    """The GPUs of ``devices`` under their names in CUDA_VISIBLE_DEVICES; none for the CPU.

    Raises UserError for a GPU that does not exist.
    """
    import torch  # imported here: jobs of a cluster do not need it

    known = [str(index) for index in range(torch.cuda.device_count())]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        known = [name.strip() for name in visible.split(",")][: len(known)]
    if devices == "auto":
        return known
    if devices == "cpu":
        return []
    wanted = [name.strip().removeprefix("cuda:") for name in devices.split(",")]
    if missing := [name for name in wanted if name not in known]:
        found = f"there are {', '.join(known)}" if known else "there is no GPU"
        raise UserError(f"--devices {devices}: no GPU {missing[0]!r}; {found}")
    return wanted
