"""Trains the runs of a grid in order, with any launcher."""

import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mixskd.comparison.display import Display
from mixskd.comparison.launchers import Job, Launcher
from mixskd.comparison.plan import Run, unfinished
from mixskd.comparison.worker import TRY_AGAIN, settings_file
from mixskd.config import to_yaml
from mixskd.errors import UserError, first_line
from mixskd.errors.terminal import show
from mixskd.runtime.distributed import World
from mixskd.runtime.files import write_text
from mixskd.training.interrupt import Interrupt, Interrupted

PAUSE = 0.2  # seconds between two looks at the jobs
RETRY = 2.0  # seconds before a run is submitted again


class Supply(Protocol):
    """Gives further runs while others proceed, as a search does."""

    def next(self) -> Run | None:
        """The next run, or None at present."""
        ...

    def ended(self, run: Run, failure: str | None) -> None:
        """Called when a run has ended; ``failure`` says why if it failed."""
        ...


MOST_SUPPLIED = 8  # runs at a time of a launcher without a limit, so that a search learns from the first ones


def carry_out_all(
    runs: Sequence[Run], launcher: Launcher, progress: Display, supply: Supply | None = None
) -> dict[str, str]:
    """Train the unfinished ``runs``, each after those it needs; by the name of each failed run, why, in one line.

    ``supply`` gives further runs whenever a place is free, until it has no more and all runs have ended. On SIGINT or
    SIGTERM all runs save a checkpoint and stop, and Interrupted is raised.
    """
    failures: dict[str, str] = {}
    waiting = {run.name: run for run in unfinished(runs)}
    active: dict[str, tuple[Run, Job]] = {}
    not_before: dict[str, float] = {}  # when a run may be submitted again
    for run in waiting.values():
        write_text(settings_file(run.folder, run.name), to_yaml(run.experiment))
    with progress, Interrupt(World()) as interrupt:
        while True:
            while supply is not None and len(waiting) + len(active) < (launcher.slots or MOST_SUPPLIED):
                if (more := supply.next()) is None:
                    break
                waiting[more.name] = more
                write_text(settings_file(more.folder, more.name), to_yaml(more.experiment))
            if not waiting and not active:
                break
            for run in list(waiting.values()):
                if failed := [name for name in run.after if name in failures]:
                    failures[run.name] = f"{failed[0]}, whose weights it needs, failed"
                    progress.failed(waiting.pop(run.name), failures[run.name])
                elif (
                    (launcher.slots is None or len(active) < launcher.slots)
                    and not any(name in waiting or name in active for name in run.after)
                    and time.monotonic() >= not_before.get(run.name, 0)
                ):
                    active[run.name] = waiting.pop(run.name), launcher.submit(run.folder, run.name)
            for name, (run, job) in list(active.items()):
                if not job.done():
                    continue
                del active[name]
                reason = why_failed(run, job)
                if reason == "":
                    progress.finished(run)
                elif reason is None:
                    waiting[name] = run
                    not_before[name] = time.monotonic() + RETRY
                else:
                    failures[name] = reason
                    progress.failed(run, reason)
                if supply is not None and reason is not None:
                    supply.ended(run, failures.pop(name, None))
            progress.show(
                [run for run, _ in active.values()] + [waiting[name] for name in not_before if name in waiting]
            )
            if number := interrupt.signal():
                stop(launcher, [job for _, job in active.values()], number)
            time.sleep(PAUSE)
    return failures


def why_failed(run: Run, job: Job) -> str | None:
    """Why ``run`` failed, in one line, once ``job`` is done; empty if it finished, None if it must be tried again."""
    try:
        outcome: int | str = job.result()
    except UserError as error:
        outcome = str(error)
    except Exception as error:  # the launcher's own
        reason = f"{type(error).__name__}: {first_line(error)}"
        outcome = 1 if run.log.exists() else f"the launcher lost the job: {reason}"
    if run.finished:
        changed = run.other_settings()
        return f"another comparison ran it in this folder with other settings: {changed}" if changed else ""
    if isinstance(outcome, str):
        return outcome
    return None if outcome == TRY_AGAIN else last_words(run.log, outcome)


def stop(launcher: Launcher, jobs: Sequence[Job], number: int) -> None:
    """Wait until all runs have saved themselves. Raises Interrupted."""
    show(f"mixskd: {signal.Signals(number).name}: the runs save themselves and stop", error=True)
    launcher.stop()
    for job in jobs:
        with contextlib.suppress(Exception):
            job.result()
    show("mixskd: stopped; the same command continues", error=True)
    raise Interrupted(128 + number)


def last_words(log: Path, code: int) -> str:
    """Why a run failed, in one line: the last line of its log, or the signal that killed it."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no log")
    return f"{last.removeprefix('mixskd: error: ')} (exit code {code}, see {log})"
