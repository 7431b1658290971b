"""How long predictions take: all images at once, and one at a time in three ways.

``python benchmarks/predict.py MODEL FOLDER --images 1000 --out report.json``, with OMP_NUM_THREADS unset.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

import mixskd
from mixskd.data import worker_count
from mixskd.data.image_paths import image_files
from mixskd.deploy.predicting import BATCH_SIZE, Predictor
from mixskd.errors.text import to_json
from mixskd.runtime.precision import choose_device, device_name


def used() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def command(model: str, files: list[str]) -> None:
    """``mixskd predict`` in a process of its own, with a file as its output."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "mixskd", "predict", model, *files, "--out", str(Path(folder) / "a.csv")]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def measure(model: str, files: list[str], rounds: int, sample: int, commands: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds an image, by the clock and of the processor, of each way in each round; the ways take turns.

    All ``files`` go through the ways that take them at once; of the others a ``sample`` is timed.
    """
    ways: dict[str, tuple[Callable[[list[str]], object], int]] = {
        "command": (lambda some: command(model, some), len(files)),
        "call": (lambda some: mixskd.predict(model, some), len(files)),
        "loop_of_one_model": (lambda some: list(Predictor(model, batch_size=1, workers=0)(some)), sample),
        "calls_of_one_image": (lambda some: [mixskd.predict(model, [file]) for file in some], sample),
        "commands_of_one_image": (lambda some: [command(model, [file]) for file in some], commands),
    }
    found: dict[str, dict[str, list[float]]] = {name: {"clock_ms": [], "processor_ms": []} for name in ways}
    mixskd.predict(model, files[:2])
    for _ in range(rounds):
        for name, (act, count) in ways.items():
            start, before = time.perf_counter(), used()
            act(files[:count])
            gc.collect()  # ends the workers, whose seconds count from then on
            for kind, value in (("clock_ms", time.perf_counter() - start), ("processor_ms", used() - before)):
                found[name][kind].append(round(1000 * value / count, 2))
            print(
                name,
                {kind: values[-1] for kind, values in found[name].items()},
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=100, help="images that are timed one at a time")
    parser.add_argument("--commands", type=int, default=5, help="commands of one image that are timed")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    files = list(islice(image_files([arguments.folder]), arguments.images))
    classifier = mixskd.load(arguments.model)
    report = {
        "images": len(files), "backbone": classifier.name, "image_size": classifier.image_size,
        "batch_size": BATCH_SIZE, "workers": worker_count(None), "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "device": device_name(choose_device("auto")), "torch": torch.__version__,
        "mixskd": mixskd.__version__, "load_before": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    found = measure(arguments.model, files, arguments.rounds, arguments.sample, arguments.commands)
    report |= {"load_after": round(os.getloadavg()[0], 2), "an_image": found}
    text = to_json(report, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        Path(arguments.out).write_text(text)


if __name__ == "__main__":
    main()
