"""The loop that runs the runs of a grid, whatever the launcher."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mixskd.comparison.launchers import Job, Launcher
from mixskd.comparison.plan import Run, unfinished
from mixskd.comparison.worker import ELSEWHERE, settings_file
from mixskd.config import to_yaml
from mixskd.runtime.distributed import World
from mixskd.runtime.files import write_text
from mixskd.training.interrupt import Interrupt, Interrupted

PAUSE = 0.2  # seconds between two looks
RETRY = 2.0  # seconds between two tries of a run that another process is at


class Display(Protocol):
    """Shows a person how the runs proceed."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, runs: Sequence[Run]) -> None: ...

    def finished(self, run: Run) -> None: ...

    def failed(self, run: Run, reason: str) -> None: ...


class Supply(Protocol):
    """Gives further runs while others proceed, as a search does."""

    def next(self) -> Run | None:
        """The next run; None if there is none at present."""
        ...

    def ended(self, run: Run, failure: str | None) -> None:
        """Called when a run has ended; ``failure`` says why if it failed."""
        ...


MOST_SUPPLIED = 8  # runs at a time of a launcher without a limit, so that a search learns from the first ones


def carry_out_all(
    runs: Sequence[Run], launcher: Launcher, progress: Display, supply: Supply | None = None
) -> dict[str, str]:
    """Carry out those of ``runs`` that are not finished, each after those it needs; what failed, a line each by name.

    ``supply`` gives further runs whenever a place is free, until it has no more and all runs have ended. On SIGINT or
    SIGTERM all runs save themselves, and Interrupted is raised.
    """
    failures: dict[str, str] = {}
    waiting = {run.name: run for run in unfinished(runs)}
    under_way: dict[str, tuple[Run, Job]] = {}
    not_before: dict[str, float] = {}
    for run in waiting.values():
        write_text(settings_file(run.folder, run.name), to_yaml(run.experiment))
    with progress, Interrupt(World()) as interrupt:
        while True:
            while supply is not None and len(waiting) + len(under_way) < (launcher.slots or MOST_SUPPLIED):
                if (more := supply.next()) is None:
                    break
                waiting[more.name] = more
                write_text(settings_file(more.folder, more.name), to_yaml(more.experiment))
            if not waiting and not under_way:
                break
            for run in list(waiting.values()):
                if blocked := [name for name in run.after if name in failures]:
                    failures[run.name] = f"{blocked[0]}, whose weights it needs, failed"
                    progress.failed(waiting.pop(run.name), failures[run.name])
                elif (
                    (launcher.slots is None or len(under_way) < launcher.slots)
                    and not any(name in waiting or name in under_way for name in run.after)
                    and time.monotonic() >= not_before.get(run.name, 0)
                ):
                    under_way[run.name] = waiting.pop(run.name), launcher.submit(run.folder, run.name)
            for name, (run, task) in list(under_way.items()):
                if not task.done():
                    continue
                del under_way[name]
                code = exit_code_of(task)
                if code == ELSEWHERE:
                    waiting[name] = run
                    not_before[name] = time.monotonic() + RETRY
                elif run.finished and (changed := run.other_settings()):
                    failures[name] = f"another comparison ran it in this folder with other settings: {changed}"
                    progress.failed(run, failures[name])
                elif run.finished:
                    progress.finished(run)
                else:
                    failures[name] = reason(run.log, code)
                    progress.failed(run, failures[name])
                if supply is not None and code != ELSEWHERE:
                    supply.ended(run, failures.pop(name, None))
            elsewhere = [waiting[name] for name in not_before if name in waiting]
            progress.show([run for run, _ in under_way.values()] + elsewhere)
            if number := interrupt.signal():
                stop(launcher, [task for _, task in under_way.values()], number)
            time.sleep(PAUSE)
    return failures


def stop(launcher: Launcher, tasks: Sequence[Job], number: int) -> None:
    """Wait until all runs have saved themselves. Raises Interrupted."""
    print(f"mixskd: {signal.Signals(number).name}: the runs save themselves and stop", file=sys.stderr)
    launcher.stop()
    for task in tasks:
        exit_code_of(task)
    print("mixskd: stopped; the same command continues", file=sys.stderr)
    raise Interrupted(128 + number)


def exit_code_of(task: Job) -> int:
    """That of the run, 1 if the launcher lost it."""
    try:
        return task.result()
    except Exception:
        return 1


def reason(log: Path, code: int) -> str:
    """Why a run failed, in one line: the last of its log, or the signal that killed it."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no log")
    return f"{last.removeprefix('mixskd: error: ')} (exit code {code}, see {log})"
