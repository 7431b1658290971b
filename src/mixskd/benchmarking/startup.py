"""How long the command line takes to start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time


def startup_seconds() -> dict[str, float]:
    """Seconds of ``mixskd --help``, and of a whole run on the digits whose only epoch is one step."""
    with tempfile.TemporaryDirectory() as folder:
        run = ["train", "digits", "--epochs", "1", "--data.per-class", "7", "--optim.warmup-epochs", "0"]
        return {
            "help": _seconds(["--help"]),
            "train_one_step": _seconds([*run, "--run.progress", "false", "--out", f"{folder}/run"]),
        }


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mixskd", *words], check=True, capture_output=True)
    return time.perf_counter() - start
