"""The comparison P2 of docs/experiments.md: fine-tuning on few photographs at equal cost, paired over draws.

    python benchmarks/finetuning_equal_cost.py flowers17 --weights lite0.safetensors --out results/finetuning_equal_cost

``flowers17`` is an image folder with 60 training images a class. Each draw holds 30 of them, as links, and the test
images. Every draw and size is a grid of ``mixskd compare --equal-cost``; the same call continues after an interruption.
``--table`` only reads what has been finished. The differences are paired by draw.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path
from typing import Any

from mixskd.comparison.comparison import compare
from mixskd.reporting.tables.differences import t_interval
from mixskd.runtime.files import write_text

EPOCHS = {10: 40, 30: 13}  # 400 updates for both numbers of images a class
SCORES = {"top1": "test top-1", "loss": "log-loss", "ece": "ECE"}
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {"name": "baseline"},
    "label_smoothing": {"name": "label_smoothing"},
    "mixup": {"name": "mixup", "alpha": 0.2},
    "cutmix": {"name": "cutmix"},
    "mixup_cutmix": {"name": "mixup_cutmix"},
    "ols": {"name": "ols"},
    "ict": {"name": "ict", "alpha": 0.2},
    "cskd": {"name": "cskd"},
    "pskd": {"name": "pskd"},
    "light": {"name": "mixskd", "preset": "light"},
    "share": {"name": "mixskd", "preset": "light", "share": 0.25},
    "mixskd": {"name": "mixskd"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="an image folder with train and test")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(EPOCHS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the table of the finished runs")
    arguments = parser.parse_args()
    if not arguments.table:
        for size in arguments.sizes:
            for draw in range(arguments.draws):
                run(arguments, size, draw)
                write_table(arguments.out)
    write_table(arguments.out)


def run(arguments: Any, size: int, draw: int) -> None:
    """Every arm on one draw, with the operations of the baseline."""
    source = Path(f"{arguments.images}_draw{draw}")
    if not source.exists():
        link_draw(arguments.images, source, random.Random(draw))
    compare(
        "finetune", methods=ARMS, backbones="timm/tf_efficientnet_lite0", seeds=[draw], equal_cost="baseline",
        suites="calibration", data={"source": str(source), "image_size": 128, "per_class": size, "workers": 0},
        weights=arguments.weights, out=arguments.out / f"images{size}_draw{draw}", jobs=arguments.jobs, progress=False,
        run={"epochs": EPOCHS[size], "precision": "fp32", "evaluate_every": 1000, "checkpoint_every_epochs": 10},
    )  # fmt: skip


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
    """Means and paired differences to the best plain arm, for each number of images a class."""
    text = "".join(table(folder, size) for size in EPOCHS)
    write_text(folder / "table.md", "# Fine-tuning at equal cost\n\n" + text)


def table(folder: Path, size: int) -> str:
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for file in sorted(folder.glob(f"images{size}_draw*/*/summary.json")):
        summary = json.loads(file.read_text())
        draw, arm = summary["experiment"]["seed"], file.parent.name.split("-")[0]
        scores.setdefault(arm, {})[draw] = {**summary["scores"]["test"], "ece": ece(file.parent)}
        scores.setdefault("probe", {})[draw] = {"top1": summary["probe"]["scores"]["test"]["top1"]}
    draws = sorted({draw for arm in scores.values() for draw in arm})
    complete = {arm: values for arm, values in scores.items() if set(values) == set(draws)}
    if "baseline" not in complete:
        return ""
    opponent = max(
        (arm for arm in ("baseline", "label_smoothing", "mixup", "cutmix") if arm in complete),
        key=lambda arm: sum(complete[arm][draw]["top1"] for draw in draws),
    )
    head = f"## {size} images a class, draws {', '.join(map(str, draws))}; best plain arm: {opponent}\n\n"
    lines = [f"| arm | {' | '.join(SCORES.values())} | top-1 less that of {opponent} | log-loss | ECE |"]
    lines.append("|---" * (2 * len(SCORES) + 1) + "|")
    for arm, values in complete.items():
        known = [score for score in SCORES if score in values[draws[0]]]
        means = {score: sum(values[draw][score] for draw in draws) / len(draws) for score in known}
        gains = {score: [values[draw][score] - complete[opponent][draw][score] for draw in draws] for score in known}
        cells = [f"{means[score]:.3f}" if score in means else "" for score in SCORES]
        differences = [interval(gains[score]) if score in gains and arm != opponent else "" for score in SCORES]
        lines.append(f"| {arm} | {' | '.join(cells + differences)} |")
    return head + "\n".join(lines) + "\n\n"


def ece(folder: Path) -> float:
    """The expected calibration error, in percent, of the probabilities as they are."""
    (file,) = folder.glob("evaluation/calibration*.json")
    return float(json.loads(file.read_text())["whole"]["ece"])


def interval(values: list[float]) -> str:
    found = t_interval(values)
    if found is None:
        return "too few draws"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


if __name__ == "__main__":
    main()
