"""How long the command line takes to start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIXSKD = [sys.executable, "-m", "mixskd"]


def startup_seconds() -> dict[str, float]:
    """Seconds of ``mixskd --help``, and until the first step of a run on the digits is done and saved."""
    start = time.perf_counter()
    subprocess.run([*MIXSKD, "--help"], check=True, stdout=subprocess.DEVNULL)
    return {"help": time.perf_counter() - start, "first_step": _first_step()}


def _first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = ["train", "digits", "--run.checkpoint-every-steps", "1", "--run.progress", "false", "--out", str(out)]
        start = time.perf_counter()
        with subprocess.Popen([*MIXSKD, *run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (out / "checkpoint.pt").exists():
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            process.kill()
    return seconds
