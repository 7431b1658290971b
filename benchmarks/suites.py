"""How long the evaluation suites take on a test set: ``python benchmarks/suites.py --data cifar100.npz --out FILE``.

It evaluates a WRN-16-2 (fresh, or the model file of ``--model``) with every suite but ``corruption``, as ``mixskd
evaluate A B --suite all`` does with the first of two runs; the second is there for ``confidence`` to compare. It writes
the seconds of each suite as JSON: by the clock, and of the CPU on all threads of this process together. Other work on a
machine lengthens the first, and the second less. Without ``--data`` the images are random numbers. The first suite pays
for what all suites share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import mixskd
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD


class Done(Exception):
    """The first classifier is evaluated."""


class Clock:
    """Is told the progress of suites, and knows the seconds between the ends of two: by the clock, and of the CPU.

    It raises Done when the second classifier's turn comes.
    """

    def __init__(self, first: str) -> None:
        self.first = first
        self.last = time.perf_counter(), time.process_time()
        self.taken: dict[str, dict[str, float]] = {}

    def __call__(self, run: str, suite: str, share: float) -> None:
        if run != self.first:
            raise Done
        now = time.perf_counter(), time.process_time()
        taken = self.taken.setdefault(suite, {"seconds": 0.0, "cpu_seconds": 0.0})
        for key, before, after in zip(taken, self.last, now, strict=True):
            taken[key] += after - before
        self.last = now


def write_data(folder: Path, source: str | None, images: int) -> tuple[Path, Path, list[str]]:
    """The data with so many test images, and as many foreign images: stripes and noise. Both as .npz, with classes."""
    draw = np.random.default_rng(0)
    if source is None:
        arrays = {
            f"{split}_{kind}": array
            for split, number in (("train", 10_000), ("test", images))
            for kind, array in (
                ("images", draw.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)),
                ("labels", np.arange(number) % 100),
            )
        }
        arrays["classes"] = np.array([str(i) for i in range(100)])
    else:
        with np.load(source) as file:
            arrays = {key: file[key] for key in file.files}
        arrays |= {key: arrays[key][:images] for key in ("test_images", "test_labels")}
    np.savez(folder / "data.npz", **arrays)
    number = len(arrays["test_labels"])
    stripes = (np.arange(32) % draw.integers(2, 9, number)[:, None] < 2) * 128
    foreign = draw.integers(0, 128, (number, 32, 32, 3)) + stripes[:, None, :, None]
    np.savez(
        folder / "foreign.npz", train_images=foreign[:10].astype(np.uint8), train_labels=np.arange(10) % 2,
        test_images=foreign.astype(np.uint8), test_labels=np.arange(number) % 2, classes=np.array(["a", "b"]),
    )  # fmt: skip
    return folder / "data.npz", folder / "foreign.npz", arrays["classes"].tolist()


def fresh(path: Path, classes: list[str], seed: int) -> Path:
    """The model file of an untrained WRN-16-2."""
    torch.manual_seed(seed)
    backbone = mixskd.build_backbone("wrn_16_2", len(classes))
    return mixskd.save_model(backbone, path, classes=classes, image_size=32, mean=CIFAR_MEAN, std=CIFAR_STD)


def measure(
    data: str | None, model: str | None, images: int, threads: int, batch_size: int | None
) -> dict[str, object]:
    """Times of all suites, as the JSON holds them."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, foreign, classes = write_data(folder, data, images)
        first = fresh(folder / "first.safetensors", classes, 0) if model is None else Path(model)
        second = fresh(folder / "second.safetensors", classes, 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clock = Clock(first.resolve().name)
        with contextlib.suppress(Done):
            mixskd.run_suites(
                [first, second], "all", options={"ood": {"data": str(foreign)}}, data=str(source),
                batch_size=batch_size, device="cpu", progress=clock,
            )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = {key: sum(taken[key] for taken in clock.taken.values()) for key in ("seconds", "cpu_seconds")}
    return {
        "images": images,
        "backbone": "wrn_16_2",
        "weights": "fresh" if model is None else Path(model).name,
        "data": "random" if data is None else Path(data).name,
        "threads": threads,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "batch_size": batch_size or "default",
        "suites": clock.taken,
        "total": total,
        "cpu_seconds_by_threads": total["cpu_seconds"] / threads,
        "peak_memory_bytes": after * 1024,
        "peak_memory_before_bytes": before * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FILE.npz", help="CIFAR-100 as an .npz file; random images if not given")
    parser.add_argument("--model", metavar="FILE.safetensors", help="a trained classifier; an untrained one by default")
    parser.add_argument("--images", type=int, default=10_000, help="of the test set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--out", metavar="FILE.json")
    given = parser.parse_args()
    text = json.dumps(measure(given.data, given.model, given.images, given.threads, given.batch_size), indent=2)
    print(text)
    if given.out:
        Path(given.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
