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

figure, axes = plt.subplots(figsize=(7, 3.4))
for name, scores in points.items():
    cost = METHODS[name].about.compute if name in METHODS else 4.0
    label = name if name in METHODS else "baseline, 4 x epochs"
    mean, ours = sum(scores) / len(scores), name == "mixskd"
    colour = "#c2410c" if ours else "#475569"
    axes.plot([cost, cost], [min(scores), max(scores)], color=colour, linewidth=1)
    axes.plot(cost, mean, "o", color=colour, markersize=6)
    axes.annotate(label, (cost, mean), xytext=(7, 0), textcoords="offset points", va="center", color=colour)
axes.set_xlabel("operations of training (baseline: 1)")
axes.set_ylabel("top-1 on test images (%)")
axes.set_xlim(0.8, 5.2)
axes.spines[["top", "right"]].set_visible(False)
axes.set_title("Oxford 17 Flowers, 10 images a class, EfficientNet-Lite0 from ImageNet weights", fontsize=9, loc="left")
figure.tight_layout()
figure.savefig(HERE / "fine_tuning.svg", metadata={"Date": None}, transparent=False)
