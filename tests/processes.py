"""Processes that start at once: forks of one that has imported torch, which would cost each of them seconds."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_post_hook

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mixskd.training.run", "sklearn.datasets", "torchmetrics", "torch.distributed.run"])
SECONDS = 600  # less than pytest's limit for a test; nothing waits so long unless it hangs


class Fork:
    """A process that calls ``act(*arguments)``; it has ``environment`` beside this process's, and its own output."""

    def __init__(
        self, log: Path, act: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        environment = {**os.environ, **(environment or {})}
        self.process = FORKS.Process(target=_call, args=(log, environment, act, arguments))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs; negative for the signal that killed it."""
        return self.process.exitcode

    @property
    def said(self) -> str:
        """What it has written, to both of its outputs."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """The exit code, once it ends."""
        self.process.join(SECONDS)
        if self.code is None:
            self.process.kill()
            raise AssertionError(f"it still runs after {SECONDS} s: {self.said}")
        return self.code

    def succeed(self) -> None:
        """Wait until it ends, as it should."""
        assert self.wait() == 0, self.said


def _call(log: Path, environment: dict[str, str], act: Callable[..., object], arguments: Sequence[object]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    act(*arguments)


def as_module(name: str, *words: str) -> None:
    """What ``python -m name words`` does in its process."""
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def signalled(step: int, number: int, *words: str) -> None:
    """What ``python -m mixskd words`` does in its process, which gets signal ``number`` in its step ``step``.

    Of several processes it is the last one, and not again after ``torchrun`` has restarted them.
    """
    last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
    if last and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        steps = itertools.count(1)

        def stop(*_: object) -> None:
            if next(steps) == step:
                os.kill(os.getpid(), number)

        register_optimizer_step_post_hook(stop)
    as_module("mixskd", *words)


def mixskd(log: Path, *words: str) -> Fork:
    """``python -m mixskd`` with these words."""
    return Fork(log, as_module, "mixskd", *words)


class ForkedWorker:
    """Instead of the ``subprocess.Popen`` of a worker of comparisons: the same code in a fork, without the imports."""

    def __init__(self, command: list[str], *, env: dict[str, str], cwd: Path | None, **_: Any) -> None:
        assert command[1:] == ["-m", "mixskd.comparison.worker"]
        (requests, to_worker), (from_worker, answers) = (FORKS.Pipe(duplex=False) for _ in range(2))
        self.process = FORKS.Process(target=_serve, args=(requests, answers, env, cwd))
        self.process.start()
        requests.close()
        answers.close()
        # A connection closes what it holds once it is collected, so that each file has a descriptor of its own.
        self.stdin = os.fdopen(os.dup(to_worker.fileno()), "w")
        self.stdout = os.fdopen(os.dup(from_worker.fileno()))

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def _serve(requests: Connection, answers: Connection, environment: dict[str, str], directory: Path | None) -> None:
    from mixskd.comparison.worker import serve

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory or ".")
    for number, connection in enumerate((requests, answers)):
        os.dup2(connection.fileno(), number)
    requests.close()
    answers.close()
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    serve()


@contextmanager
def two(folder: Path, act: Callable[..., object], *arguments: object) -> Iterator[list[Fork]]:
    """Two processes that find each other as those of ``torchrun`` do, each with a log in ``folder``."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
    }  # fmt: skip
    ranks = (place | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01")
    forks = [
        Fork(folder / f"rank{number}.log", act, *arguments, environment=environment)
        for number, environment in enumerate(ranks)
    ]
    try:
        yield forks
    finally:
        for fork in forks:
            fork.process.kill()
            fork.process.join()


def run_two(folder: Path, act: Callable[..., object], *arguments: object) -> None:
    """Run two processes to their end, as it should be."""
    with two(folder, act, *arguments) as forks:
        for fork in forks:
            fork.succeed()
