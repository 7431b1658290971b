"""Draw fine_tuning.svg from the runs in results/finetune_flowers17_10: ``python docs/figures/fine_tuning.py``."""

import io
import json
import re
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mixskd.methods import METHODS

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "results/finetune_flowers17_10"
NETWORK = "EfficientNet-Lite0 at 128 px"
LONG = "baseline_120"
STYLE = {"svg.hashsalt": "mixskd", "svg.fonttype": "none"}  # the same file from the same runs


def label(name: str) -> str:
    if name == LONG:
        return "baseline, 4 times the epochs  (4 x)"
    return f"{name}  ({METHODS[name].about.compute_on(NETWORK):.2g} x)"


def picture() -> str:
    points = defaultdict(list)
    for path in sorted(RUNS.glob("*/summary.json")):
        name = re.match(r"(.*?)-timm", path.parent.name)[1]
        points[name].append(json.loads(path.read_text())["last"]["top1"])
    means = {name: sum(scores) / len(scores) for name, scores in points.items()}
    order = sorted(means, key=means.__getitem__)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(7, 2.9))
        FigureCanvasSVG(figure)  # the same measures of text, whatever the backend in use
        axes = figure.subplots()
        for y, name in enumerate(order):
            colour = "#c2410c" if name == "mixskd" else "#475569"
            axes.plot([min(points[name]), max(points[name])], [y, y], color=colour, linewidth=2, alpha=0.4)
            axes.plot(points[name], [y] * len(points[name]), "|", color=colour, markersize=9)
            axes.plot(means[name], y, "o", color=colour, markersize=7)
        axes.set_yticks(range(len(order)), [label(name) for name in order])
        axes.set_xlabel("top-1 on test images (%): each seed, and the mean")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
        title = "17 kinds of flowers, 10 images each, from ImageNet weights (in brackets: operations of training)"
        figure.suptitle(title, fontsize=10)
        figure.tight_layout()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=False)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    (HERE / "fine_tuning.svg").write_text(picture(), encoding="utf-8")
