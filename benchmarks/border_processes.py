"""Processes of the border campaign: forks of one that has imported torch, stopped at a chosen moment of their work."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: forks and whole processes make the same bits
import sklearn.datasets  # noqa: F401
import timm  # noqa: F401
import torch.distributed as dist  # noqa: F401
import torchmetrics  # noqa: F401
from torch.optim.optimizer import register_optimizer_step_post_hook

import mixskd.__main__
import mixskd.comparison.comparison
import mixskd.deploy.calibrating
import mixskd.deploy.exporting
import mixskd.deploy.predicting
import mixskd.evaluation.runner
import mixskd.reporting.page.report
import mixskd.training.run
import mixskd.transfer.evaluating
import mixskd.transfer.predicting

LIMIT = 120  # seconds, on a loaded machine


@dataclass(frozen=True)
class Stop:
    """A signal ``delay`` seconds after event number ``event`` of a process; see :class:`Ended`."""

    event: int
    delay: float
    number: signal.Signals


@dataclass
class Ended:
    """How a process ended: its exit code (None if it had to be killed), its output and its events.

    ``events`` has a letter an event: o for a file that is opened, r for one that is renamed, s for a step of training.
    """

    code: int | None
    out: str = ""
    error: str = ""
    events: str = ""
    stopped: bool = False

    def fault(self) -> str | None:
        """The name of what is wrong with this end, whatever the input was."""
        if self.code is None:
            return "hang"
        said = self.error + self.out
        if "Traceback (most recent call last)" in said or "Exception ignored in" in said:
            return "traceback"
        return "exit_70" if self.code == 70 else None


class Fork:
    """A fork that calls ``act`` (by default ``mixskd argv``) with its own output; ``before`` is called in it first."""

    def __init__(
        self, argv: list[str], folder: Path, *, name: str = "", stop: Stop | None = None,
        act: Callable[[], int | None] | None = None, before: Callable[[], object] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:  # fmt: skip
        self.files, self.stop = [folder / f"{name}out.txt", folder / f"{name}error.txt"], stop
        self.began, self.code, self.events, self.stopped = time.monotonic(), None, "", False
        self.done, self.moment = False, None
        self.pipe, pipe = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.pipe)
            _child(argv, self.files, pipe, act, before, environment or {})
        os.close(pipe)

    def look(self) -> bool:
        """Whether it has ended; its signal is sent once its moment has come."""
        if self.done:
            return True
        if select.select([self.pipe], [], [], 0.005)[0]:
            self.events += os.read(self.pipe, 65536).decode()
        else:
            time.sleep(0.002)
        now = time.monotonic()
        if self.stop is not None:
            if self.moment is None and len(self.events) >= self.stop.event:
                self.moment = now + self.stop.delay
            if self.moment is not None and now >= self.moment:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.process, self.stop.number)
                self.stop, self.stopped = None, True
        ended, status = os.waitpid(self.process, os.WNOHANG)
        if not ended and now - self.began > LIMIT:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            ended = self.process
        elif ended:
            self.code = os.waitstatus_to_exitcode(status)
        if ended:
            while select.select([self.pipe], [], [], 0)[0] and (more := os.read(self.pipe, 65536)):
                self.events += more.decode()
            os.close(self.pipe)
            self.done = True
        return self.done

    def end(self) -> Ended:
        """Its end, which is waited for."""
        while not self.look():
            pass
        return Ended(self.code, *(file.read_text(errors="replace") for file in self.files), self.events, self.stopped)


def call(argv: list[str], folder: Path, **options: Any) -> Ended:
    """The end of a :class:`Fork`."""
    return Fork(argv, folder, **options).end()


def _child(
    argv: list[str], files: list[Path], pipe: int, act: Callable[[], int | None] | None,
    before: Callable[[], object] | None, environment: Mapping[str, str | None],
) -> None:  # fmt: skip
    code = 99
    try:
        for path, number in zip(files, (1, 2), strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs of a shell
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        register_optimizer_step_post_hook(lambda *_: os.write(pipe, b"s") and None)
        main = threading.main_thread()

        def heard(event: str, _: object) -> None:
            if event in ("open", "os.rename") and threading.current_thread() is main:
                with contextlib.suppress(OSError):
                    os.write(pipe, b"o" if event == "open" else b"r")

        sys.addaudithook(heard)
        if before is not None:
            before()
        sys.argv = ["mixskd", *argv]
        code = (act or mixskd.__main__.run)() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def pair(argv: list[str], folder: Path, stops: Mapping[int, Stop]) -> list[Ended]:
    """The ends of two processes that find each other as those of torchrun do; rank i gets ``stops[i]``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    forks = [
        Fork(argv, folder, name=f"rank{rank}", stop=stops.get(rank),
             environment={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]  # fmt: skip
    while not all([fork.look() for fork in forks]):  # noqa: C419 (each is looked at)
        pass
    return [fork.end() for fork in forks]


def whole_process(argv: list[str], sign: Path, delay: float, number: signal.Signals) -> Ended:
    """``python -m mixskd`` with a signal ``delay`` seconds after the file ``sign`` is there: while Python leaves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([sys.executable, "-m", "mixskd", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)  # fmt: skip
    began = time.monotonic()
    while process.poll() is None and not sign.exists() and time.monotonic() - began < LIMIT:
        time.sleep(0.005)
    time.sleep(delay)
    stopped = process.poll() is None
    if stopped:
        process.send_signal(number)
    try:
        out, error = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return Ended(None, *process.communicate(), stopped=stopped)
    return Ended(process.returncode, out, error, stopped=stopped)


def descendants(process: int) -> Iterator[int]:
    """``process`` and all that it started, by /proc."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from descendants(int(child))
