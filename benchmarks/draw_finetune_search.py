"""Draw the settings of the random search of fine-tuning: the same for baseline and mixup.

    python benchmarks/draw_finetune_search.py > benchmarks/finetune_search_flowers17.yaml
    mixskd compare --config benchmarks/finetune_search_flowers17.yaml --out results/finetune_search_flowers17

The sources are an image folder of that name, with 30 of the training images of each class as ``val``, and a file with
the weights under timm's keys.
"""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import yaml

TRIALS = 14  # beside the first one, whose settings are set by hand
CONTROL = {"optim.lr": 0.003, "optim.weight_decay": 1e-4, "optim.norms": "frozen", "run.epochs": 24}


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """A number between ``low`` and ``high``, uniform in its logarithm, to three digits."""
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def draw(rng: random.Random) -> dict[str, Any]:
    """The settings of one trial."""
    adamw = rng.random() < 0.4
    return {
        "optim.name": "adamw" if adamw else "sgd",
        "optim.lr": log_uniform(rng, 3e-5, 1e-3) if adamw else log_uniform(rng, 5e-4, 2e-2),
        "optim.weight_decay": rng.choice([0.01, 0.05, 0.2]) if adamw else log_uniform(rng, 1e-5, 1e-2),
        "optim.norms": rng.choice(["frozen", "frozen", "train"]),
        "optim.layer_decay": rng.choice([1.0, 0.8, 0.6]),
        "optim.ema": rng.choice([0.0, 0.98]),
        "run.epochs": rng.choice([12, 24, 40]),
        "data.crop_scale": rng.choice([[0.08, 1.0], [0.35, 1.0], [0.6, 1.0]]),
    }


def main() -> None:
    rng = random.Random(2026)
    methods: dict[str, Any] = {
        "baseline-control": {"name": "baseline", **CONTROL},
        "mixup-control": {"name": "mixup", "alpha": 0.4, **CONTROL},
    }
    for i in range(TRIALS):
        settings, alpha = draw(rng), rng.choice([0.2, 0.4, 1.0])
        methods[f"baseline-{i:02d}"] = {"name": "baseline", **settings}
        methods[f"mixup-{i:02d}"] = {"name": "mixup", "alpha": alpha, **settings}
    grid = {
        "backbones": ["timm/tf_efficientnet_lite0"],
        "seeds": [0],
        "methods": methods,
        "weights": "lite0.safetensors",
        "data": {"source": "flowers17_draw0", "image_size": 128, "per_class": 10, "crop_scale": [0.35, 1.0]},
        "optim": {
            "name": "sgd", "head_start": "probe", "schedule": "cosine", "cosine_by": "step", "warmup_epochs": 2,
        },
        "run": {"batch_size": 16, "precision": "fp32", "keep": "last", "evaluate_every": 1000},
    }  # fmt: skip
    yaml.safe_dump(grid, sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
