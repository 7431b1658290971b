"""The comparison P1 of docs/experiments.md: little data from scratch at equal cost, every arm tuned alike.

    python benchmarks/from_scratch_equal_cost.py cifar100.npz --out results/from_scratch_equal_cost

The first ten classes of CIFAR-100. First a random search of rate and weight decay with the same draws for every arm,
on 100 images a class with 100 others as ``val``; then eight draws of 100 training images a class, each arm with the
settings that were best for it on ``val``. Every step is a grid of ``mixskd compare --equal-cost``; the same call
continues after an interruption.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from equal_cost_table import ARMS, table

from mixskd.comparison.comparison import compare
from mixskd.runtime.files import write_text

TRIALS = 3
IMAGES = 100  # training images a class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arrays", type=Path, help="CIFAR-100 as an .npz file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    sources = arguments.arrays.parent / "cifar100_draws"
    if not (sources / f"draw{arguments.draws - 1}.npz").exists():  # an earlier call may have made fewer draws
        write_draws(arguments.arrays, sources, arguments.draws)
    train(arguments, sources / "search.npz", candidates(), 0, "search")
    best = {arm: best_settings(arguments.out / "search", arm) for arm in ARMS}
    write_text(arguments.out / "best.json", json.dumps(best, indent=1) + "\n")
    arms = {arm: {**ARMS[arm], **settings} for arm, settings in best.items()}
    for draw in range(arguments.draws):
        train(arguments, sources / f"draw{draw}.npz", arms, draw, f"draw{draw}", suites="calibration")
        runs = [file.parent for file in arguments.out.glob("draw*/*/summary.json")]
        write_text(arguments.out / "table.md", table("1,000 images of ten classes, from scratch", runs))


def train(arguments: Any, source: Path, methods: dict[str, Any], seed: int, name: str, **more: Any) -> None:
    compare(
        methods=methods, backbones="wrn_16_1", seeds=[seed], equal_cost=next(iter(methods)), out=arguments.out / name,
        data={"source": str(source), "workers": 0}, jobs=arguments.jobs, progress=False,
        optim={"schedule": "cosine", "nesterov": True, "warmup_epochs": 2, "clip_norm": 5.0},
        run={"epochs": arguments.epochs, "batch_size": 50, "precision": "bf16", "evaluate_every": 1000}, **more,
    )  # fmt: skip


def candidates() -> dict[str, Any]:
    """The same rates and weight decays for every arm."""
    rng = random.Random(2026)
    points = [(log_uniform(rng, 0.02, 0.4), log_uniform(rng, 2e-4, 1e-2)) for _ in range(TRIALS)]
    return {
        f"{arm}_{i}": {**options, "optim.lr": rate, "optim.weight_decay": decay}
        for i, (rate, decay) in enumerate(points)
        for arm, options in ARMS.items()
    }


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def best_settings(search: Path, arm: str) -> dict[str, float]:
    """The rate and weight decay with the highest top-1 on ``val``; the lower log-loss between equals."""

    def score(number: int) -> tuple[float, float]:
        (file,) = search.glob(f"{arm}_{number}-*/summary.json")
        scores = json.loads(file.read_text())["scores"]["val"]
        return scores["top1"], -scores["loss"]

    settings = candidates()[f"{arm}_{max(range(TRIALS), key=score)}"]
    return {key: value for key, value in settings.items() if key.startswith("optim.")}


def write_draws(arrays: Path, folder: Path, draws: int) -> None:
    """``search.npz`` with train and val, and ``drawN.npz`` with train and test, of the first ten classes."""
    data = np.load(arrays)
    folder.mkdir(exist_ok=True)
    members = [np.flatnonzero(data["train_labels"] == label) for label in range(10)]
    test = data["test_labels"] < 10
    classes, images, labels = data["classes"][:10], data["train_images"], data["train_labels"]

    def part(name: str, rows: Any) -> dict[str, Any]:
        return {f"{name}_images": images[rows], f"{name}_labels": labels[rows]}

    def draw(seed: int) -> list[Any]:
        return [np.random.default_rng(seed).permutation(rows) for rows in members]

    own = draw(1000)
    train, val = (np.concatenate([rows[at : at + IMAGES] for rows in own]) for at in (0, IMAGES))
    np.savez(folder / "search.npz", classes=classes, **part("train", train), **part("val", val))
    tested = {"test_images": data["test_images"][test], "test_labels": data["test_labels"][test]}
    for seed in range(draws):
        rows = np.concatenate([chosen[:IMAGES] for chosen in draw(seed)])
        np.savez(folder / f"draw{seed}.npz", classes=classes, **part("train", rows), **tested)


if __name__ == "__main__":
    main()
