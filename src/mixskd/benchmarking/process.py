"""Runs each variant in its own processes, so that variants can alternate and each has its own memory."""

import multiprocessing
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from mixskd.benchmarking.variants import Variant
from mixskd.config import Experiment
from mixskd.errors import UserError, first_line


class Remote:
    """The processes of one variant. ``ask`` calls a method of ``Bench`` in all of them."""

    def __init__(self, experiment: Experiment, variant: Variant, threads: int) -> None:
        context, size = multiprocessing.get_context("spawn"), variant.processes
        with socket.socket() as opened:  # a free port
            opened.bind(("localhost", 0))
            port = opened.getsockname()[1]
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            job = (theirs, experiment, variant, max(threads // size, 1), {name: str(v) for name, v in where.items()})
            process = context.Process(target=_serve, args=job)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def ask(self, name: str, *arguments: Any) -> Any:
        """The result of ``Bench.name(*arguments)``: the largest number of all processes, or else that of the first.

        Raises UserError if a process fails.
        """
        for pipe in self.pipes:
            pipe.send((name, arguments))
        answers = []
        for pipe in self.pipes:
            try:
                answer, error = pipe.recv()
            except EOFError:
                answer, error = None, "the process died, perhaps for lack of memory; try fewer --variants"
            if error:
                raise UserError(error)
            answers.append(answer)
        return max(answers) if isinstance(answers[0], int | float) else answers[0]

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            with suppress(BrokenPipeError):
                pipe.send(None)
        for process in self.processes:
            process.join()


@contextmanager
def remotes(experiment: Experiment, variants: Mapping[str, Variant], threads: int) -> Iterator[dict[str, Remote]]:
    """A Remote of each variant, all closed at the end."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(Remote(experiment, variant, threads)))
            for name, variant in variants.items()
        }


def _serve(pipe: Connection, experiment: Experiment, variant: Variant, threads: int, where: dict[str, str]) -> None:
    """Answer the requests of ``pipe`` until it sends None or is closed."""
    os.environ.update(where, MASTER_ADDR="localhost")
    from mixskd.benchmarking.variant_bench import Bench
    from mixskd.runtime.distributed import join

    torch.set_num_threads(threads)
    bench: Any = None
    with join(experiment.run.device) as world, suppress(EOFError):
        while message := pipe.recv():
            name, arguments = message
            try:
                bench = bench or Bench(experiment, variant, world)
                pipe.send((getattr(bench, name)(*arguments), None))
            except (UserError, RuntimeError) as error:
                pipe.send((None, first_line(error)))
