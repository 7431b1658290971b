"""Images a second of processor time that the training loaders of mixskd and of timm deliver, in turn.

``python benchmarks/loader_speed.py --out results/benchmarks/loader_speed.json``. Both read the same JPEG files (500 x
400 pixels, quality 90) with one worker, take a random part, resize it to 224 pixels, flip it and give normalised
batches of 64. Counted is the processor time of the process and its worker, which other jobs on the machine hardly
change; the time of the clock is beside it. FFCV publishes its loading speed as charts
(https://docs.ffcv.io/benchmarks.html), for files in its own format and machines with many cores, so there is no number
of one core to stand in this table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader

import mixskd
from mixskd.config import DataConfig
from mixskd.data import load_data, make_train_loader

BATCH, SIZE = 64, 224


def write_photos(folder: Path, number: int) -> None:
    """``number`` JPEG files of smooth waves with grain, in two classes; photographs of this kind have about 70 kB."""
    numbers = np.random.default_rng(0)
    y, x = np.mgrid[:400, :500] / 40
    for i in range(number):
        waves = [np.sin(numbers.normal() * x + numbers.normal() * y + numbers.normal()) for _ in range(3)]
        pixels = 127 + 90 * np.stack(waves, axis=2) + numbers.normal(0, 12, (400, 500, 3))
        path = folder / "train" / "ab"[i % 2] / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def processor_seconds() -> float:
    """Processor time of this process and of its children, those that have ended and those that run."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(one.ru_utime + one.ru_stime for one in used)
    lists = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    stats = (Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for part in lists for child in part)
    return ended + sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def timed(epoch: Callable[[], Iterable[Any]]) -> tuple[float, float]:
    """Images a second of processor time, and of the clock, over one epoch."""
    began, processor, images = time.perf_counter(), processor_seconds(), 0
    for batch in epoch():
        images += len(getattr(batch, "images", batch[0]))
    return images / (processor_seconds() - processor), images / (time.perf_counter() - began)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/loader_speed.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder, arguments.images)
        config = DataConfig(
            source=str(folder / "train"), image_size=SIZE, crop="resized", flip=True, workers=1, verify="off"
        )
        ours = make_train_loader(load_data(config), config, BATCH, torch.device("cpu"), 0)
        theirs = create_loader(
            create_dataset("", root=str(folder / "train")), (3, SIZE, SIZE), BATCH, is_training=True,
            use_prefetcher=False, num_workers=1, interpolation="bilinear", color_jitter=None, persistent_workers=True,
        )  # fmt: skip
        epochs: dict[str, Callable[[], Iterable[Any]]] = {"mixskd": lambda: ours.epoch(0), "timm": lambda: theirs}
        for epoch in epochs.values():
            timed(epoch)  # the workers start
        rounds = [{name: timed(epoch) for name, epoch in epochs.items()} for _ in range(arguments.rounds)]
        size = statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg"))
    found: dict[str, Any] = {
        name: {
            "images/s of processor time": round(statistics.median(one[name][0] for one in rounds), 1),
            "images/s by the clock": round(statistics.median(one[name][1] for one in rounds), 1),
        }
        for name in epochs
    }
    ratio = found["mixskd"]["images/s of processor time"] / found["timm"]["images/s of processor time"]
    found |= {
        "mixskd over timm": round(ratio, 3), "images": arguments.images, "rounds": arguments.rounds,
        "bytes a file": round(size), "processor": processor_name(),
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "mixskd": mixskd.__version__},
    }  # fmt: skip
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def processor_name() -> str:
    """The processor's name, by Linux."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
