"""Draw fine_tuning.svg from the runs in results/finetune_flowers17_10: ``python docs/figures/fine_tuning.py``."""

import json
import re
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

from mixskd.methods import METHODS

plt.switch_backend("svg")
plt.rcParams |= {"svg.hashsalt": "mixskd", "svg.fonttype": "none"}  # the same file from the same runs

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "results/finetune_flowers17_10"

points = defaultdict(list)
for path in sorted(RUNS.glob("*/summary.json")):
    name = re.match(r"(.*?)-timm", path.parent.name)[1]
    summary = json.loads(path.read_text())
    points[name].append(summary["last"]["top1"])

LONG = "baseline_120"  # the baseline for about as long as MixSKD takes


def label(name: str) -> str:
    cost = 4 if name == LONG else METHODS[name].about.compute
    return f"{'baseline, 4 times the epochs' if name == LONG else name}  ({cost:g} x)"


means = {name: sum(scores) / len(scores) for name, scores in points.items()}
order = sorted(means, key=means.__getitem__)
figure, axes = plt.subplots(figsize=(7, 2.9))
for y, name in enumerate(order):
    colour = "#c2410c" if name == "mixskd" else "#475569"
    axes.plot([min(points[name]), max(points[name])], [y, y], color=colour, linewidth=2, alpha=0.4)
    axes.plot(points[name], [y] * len(points[name]), "|", color=colour, markersize=9)
    axes.plot(means[name], y, "o", color=colour, markersize=7)
axes.set_yticks(range(len(order)), [label(name) for name in order])
axes.set_xlabel("top-1 on test images (%): each seed, and the mean")
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="x", alpha=0.3)
figure.suptitle(
    "17 kinds of flowers, 10 images each, from ImageNet weights (in brackets: cost of training)", fontsize=10
)
figure.tight_layout()
figure.savefig(HERE / "fine_tuning.svg", metadata={"Date": None}, transparent=False)
