"""Measure the resident memory (RSS) of a run of many epochs and of a grid of many runs.

``python benchmarks/memory_growth.py --epochs 300 --runs 20 --out results/border_campaign``. Writes
memory.json: the memory of the process after each tenth of the epochs, and after each run of the grid that of the
process that was started and of its children (their sum, which counts shared pages once for each process).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SETTINGS = ["--backbone", "wrn_10_1", "--batch-size", "16", "--run.progress", "false", "--run.device", "cpu",
            "--run.precision", "fp32"]  # fmt: skip


def resident(process: int) -> float:
    """The resident memory of a process, in MiB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children(process: int) -> list[int]:
    """The processes that any thread of ``process`` has started."""
    found = (path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children"))
    return [int(child) for part in found for child in part]


def data(path: Path) -> Path:
    """16 training and 8 test images of 8 px in two classes."""
    generator = np.random.default_rng(0)
    np.savez(
        path, train_images=generator.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8), train_labels=np.arange(16) % 2,
        test_images=generator.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8), test_labels=np.arange(8) % 2,
    )  # fmt: skip
    return path


def long_run(folder: Path, epochs: int) -> list[float]:
    """MiB after each tenth of the epochs of one run."""
    import mixskd

    measured = []

    class Watch(mixskd.Listener):
        def epoch(self, row: Mapping[str, float]) -> None:
            if row["epoch"] % max(epochs // 10, 1) == 0:
                measured.append(round(resident(os.getpid()), 1))

    mixskd.train(
        data=str(data(folder / "toy.npz")), backbone="wrn_10_1", method="mixskd", out=str(folder / "long"),
        run={"epochs": epochs, "batch_size": 16, "progress": False, "device": "cpu", "precision": "fp32"},
        listeners=[Watch()],
    )  # fmt: skip
    return measured


def grid(folder: Path, runs: int) -> list[dict[str, float]]:
    """MiB of the processes of a grid after each finished run: the one that was called, and the one it keeps."""
    seeds = ",".join(map(str, range(runs)))
    command = [sys.executable, "-m", "mixskd", "compare", "--data", str(data(folder / "toy.npz")), *SETTINGS[2:],
               "--backbones", "wrn_10_1", "--methods", "baseline", "--seeds", seeds, "--epochs", "1", "--jobs", "1",
               "--out", str(folder / "grid")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    measured: list[dict[str, float]] = []
    done = 0
    while process.poll() is None:
        now = len(list((folder / "grid").glob("*/summary.json")))
        if now > done:
            done = now
            measured.append({"runs": now, "scheduler": round(resident(process.pid), 1),
                             "worker": round(sum(map(resident, children(process.pid))), 1)})  # fmt: skip
        time.sleep(0.3)
    if process.returncode:
        raise SystemExit(f"the grid ended with {process.returncode}: {process.communicate()[1][-500:]}")
    return measured


def main() -> None:
    """Measure both and write memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/border_campaign"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"MiB by tenth of the epochs": long_run(Path(folder), arguments.epochs), "epochs": arguments.epochs,
                 "MiB after each run of a grid": grid(Path(folder), arguments.runs)}  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "memory.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
