"""How the process of the command line ends, alone and beside others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import functools, os
from mixskd.__main__ import run

class Late:
    __del__ = functools.partial(os.write, 1, b"the interpreter was taken down")

late = Late()
run()
"""


INTERRUPTED = """
import atexit, os, signal, time
from mixskd.__main__ import run

@atexit.register
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

run()
"""


def test_sigint_during_the_exit_of_python_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("words", "code"), [("list recipes", 0), ("list nothing", 2), ("--version", 0)])
def test_one_of_several_processes_leaves_before_the_interpreter_is_taken_down(
    processes: int, words: str, code: int
) -> None:
    environment = {**os.environ, "WORLD_SIZE": str(processes), "RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words.split()], env=environment, capture_output=True, text=True
    )
    assert done.returncode == code
    assert (done.stdout or done.stderr).strip()
    assert ("the interpreter was taken down" in done.stdout) == (processes == 1)
