"""The comparison P2 of docs/experiments.md: fine-tuning on few photographs at equal cost, paired over draws.

    python benchmarks/finetuning_equal_cost.py flowers17 --weights lite0.safetensors --out results/finetuning_equal_cost

``flowers17`` is an image folder with 60 training images a class. Each draw holds 30 of them, as links, and the test
images. Every draw and size is a grid of ``mixskd compare --equal-cost``; the same call continues after an interruption.
With ``--arms baseline --sizes 20 30`` it shows how far the recipe is above its probe on more images.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

from equal_cost_table import ARMS, table

from mixskd.comparison.comparison import compare
from mixskd.runtime.files import write_text

METHODS = {**ARMS, **{arm: {"name": arm, "alpha": 0.2} for arm in ("mixup", "ict")}}
EPOCHS = {10: 40, 20: 20, 30: 13}  # 400 updates for each number of images a class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="an image folder with train and test")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--arms", nargs="+", default=list(METHODS), help="baseline and others")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    for size in arguments.sizes:
        for draw in range(arguments.draws):
            source = Path(f"{arguments.images}_draw{draw}")
            if not source.exists():
                link_draw(arguments.images, source, random.Random(draw))
            compare(
                "finetune", methods={arm: METHODS[arm] for arm in arguments.arms},
                backbones="timm/tf_efficientnet_lite0", seeds=[draw],
                equal_cost="baseline", suites="calibration", weights=arguments.weights,
                out=arguments.out / f"images{size}_draw{draw}",
                data={"source": str(source), "image_size": 128, "per_class": size, "workers": 0},
                run={"epochs": EPOCHS[size], "precision": "fp32", "evaluate_every": 1000},
                jobs=arguments.jobs, progress=False,
            )  # fmt: skip
            write_table(arguments.out)


def link_draw(images: Path, target: Path, rng: random.Random) -> None:
    """30 training images of each class in a seeded order, so that ``data.per_class`` takes the first of them."""
    for split in ("train", "test"):
        for folder in sorted((images / split).iterdir()):
            files = sorted(folder.iterdir())
            chosen = rng.sample(files, 30) if split == "train" else files
            (target / split / folder.name).mkdir(parents=True)
            for i, file in enumerate(chosen):
                os.link(file, target / split / folder.name / f"{i:03d}_{file.name}")


def write_table(folder: Path) -> None:
    scored = "*/evaluation/calibration.json"
    sizes = {size: [file.parents[1] for file in folder.glob(f"images{size}_draw*/{scored}")] for size in EPOCHS}
    tables = "".join(table(f"{size} images a class", runs) for size, runs in sizes.items())
    write_text(folder / "table.md", "# Fine-tuning at equal cost\n\n" + tables)


if __name__ == "__main__":
    main()
