"""A process that trains runs one after the other, each as ``mixskd train`` in a forked process.

torch is imported once for all of them, and a run that crashes does not stop the others. Started as
``python -m mixskd.comparison.worker``, it reads a folder and a run's name as a line of JSON, and prints the exit code
of the run. When its input closes, also because its parent died, the run saves a checkpoint and stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from mixskd.errors import exit_code
from mixskd.errors.faults import show_unraisable
from mixskd.errors.terminal import show
from mixskd.runtime.files import locked

TRY_AGAIN = 75  # exit code (EX_TEMPFAIL) of a run that another process trains, or whose job was preempted


class Worker:
    """The parent's end of a worker with this ``environment`` and working directory (those of this process if None)."""

    def __init__(self, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
        # A fork does not have the threads that numpy starts on import.
        environment = {"OPENBLAS_NUM_THREADS": "1", **(environment or os.environ)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mixskd.comparison.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=directory, start_new_session=True,
        )  # fmt: skip

    def run(self, folder: Path, name: str) -> int:
        """Train a run; returns its exit code, or minus the signal that killed it. Raises BrokenPipeError if closed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), name]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return int(answer) if answer.strip() else self.process.wait() or 1

    def stop(self) -> None:
        """Let the current run save itself and stop."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def carry_out(folder: Path, name: str) -> int:
    """Train run ``name`` of ``folder`` to its end, from its checkpoint if it has one; returns the exit code."""
    from mixskd.config.build import read_experiment
    from mixskd.training.run import train

    run, settings = folder / name, settings_file(folder, name)

    def act() -> None:
        experiment = dataclasses.replace(read_experiment(settings), out=str(run))
        train(experiment, resume=(run / "config.yaml").exists())

    with locked(settings.with_suffix(".lock"), wait=False) as mine:
        if not mine:
            return TRY_AGAIN
        if (run / "summary.json").exists():
            return 0
        show(f"mixskd train --config {settings} --out {run}", error=True)
        return exit_code(act, debug=True)  # the log keeps the traceback


def settings_file(folder: Path, name: str) -> Path:
    """Where the settings of run ``name`` are written before it starts."""
    return folder / ".compare" / f"{name}.yaml"


def serve() -> None:
    """Train the runs that are read from standard input until it closes."""
    # Imported once for all forks, with the packages that training imports late.
    import sklearn.datasets  # noqa: F401
    import torchmetrics  # noqa: F401

    import mixskd.training.run  # noqa: F401

    sys.unraisablehook = show_unraisable
    gc.collect()
    gc.freeze()  # the forks share these objects, which no garbage collection then touches
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # the warning of a time limit is for the launcher
        signal.signal(number, signal.SIG_IGN)
    while line := sys.stdin.readline():
        folder, name = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.exit(in_child(Path(folder), name))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def in_child(folder: Path, name: str) -> int:
    """:func:`carry_out` with all output in the run's log."""
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)

    def stop_when_input_closes() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_input_closes, daemon=True).start()
    try:
        return carry_out(folder, name)
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    serve()
