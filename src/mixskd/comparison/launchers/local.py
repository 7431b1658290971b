"""Runs on this machine: workers, each with its device and its share of the processor's threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mixskd.comparison.worker import Worker
from mixskd.errors import UserError
from mixskd.runtime.distributed import usable_cores

MOST_CPU_JOBS = 8  # by default: one run a core uses a processor best, until its memory ends


class Place:
    """Room for one run at a time: the environment of its worker, and that worker once it is needed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.worker: Worker | None = None

    def run(self, folder: Path, name: str) -> int:
        """Carry out a run in the worker, or a new one if that has died; the exit code."""
        if self.worker is None or self.worker.process.poll() is not None:
            self.worker = Worker(self.environment)
        return self.worker.run(folder, name)


class Local:
    """``jobs`` runs at a time, dealt out to ``devices`` (``auto``, ``cpu``, or GPUs such as ``0,1``)."""

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        if options:
            raise UserError(f"the local launcher has no option {next(iter(options))!r}; see --jobs and --devices")
        gpus, cores = visible_gpus(devices), usable_cores()
        self.slots: int | None = (slots := jobs or len(gpus) or min(cores, MOST_CPU_JOBS))
        # The threads that a user has set stand.
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
    """The GPUs of ``devices`` as CUDA_VISIBLE_DEVICES names them; none for the CPU.

    Raises UserError for one that is not there.
    """
    import torch  # not above: the jobs of a cluster import this module too

    there = [str(index) for index in range(torch.cuda.device_count())]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        there = [name.strip() for name in visible.split(",")][: len(there)]
    if devices == "auto":
        return there
    if devices == "cpu":
        return []
    wanted = [name.strip().removeprefix("cuda:") for name in devices.split(",")]
    if missing := [name for name in wanted if name not in there]:
        found = f"there are {', '.join(there)}" if there else "there is no GPU"
        raise UserError(f"--devices {devices}: no GPU {missing[0]!r}; {found}")
    return wanted
