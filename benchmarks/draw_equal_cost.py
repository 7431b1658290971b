"""Draw the comparisons P1 and P2 of docs/experiments.md as docs/figures/equal_cost.svg, from the runs in results.

    python benchmarks/draw_equal_cost.py

A point is an arm's top-1 less that of the best plain arm of the same cost, the mean over the draws of the training
images; its line is the 95 % interval of the paired difference.
"""

from __future__ import annotations

from pathlib import Path

from equal_cost_table import ARMS, best_plain, gains, scores_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixskd.drawing.plots import styled
from mixskd.reporting.plots.colours import method_colour
from mixskd.reporting.tables.paired_differences import t_interval

ROOT = Path(__file__).parents[1]
PANELS = {
    "170 photographs, ImageNet weights": ROOT / "results" / "finetuning_10",
    "1,000 small images, from scratch": ROOT / "results" / "from_scratch_1000",
}


def main() -> None:
    with styled():
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, folder) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True):
            scores = scores_of(file.parent for file in folder.glob("*/summary.json"))
            opponent = best_plain(scores)
            for row, arm in enumerate(ARMS):
                found = t_interval(gains(scores, arm, opponent, "top1"))
                colour = method_colour(str(ARMS[arm]["name"]))
                if arm == opponent or found is None:
                    axes.plot(0, row, "D", color=colour)
                    continue
                axes.plot([found.low, found.high], [row, row], color=colour)
                axes.plot(found.mean, row, "o", color=colour)
            axes.axvline(0, color="grey", linestyle=":", linewidth=1)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(f"top-1 less that of {opponent}, points")
            axes.grid(alpha=0.25)
            axes.set_yticks(range(len(ARMS)), list(ARMS))
        figure.axes[0].invert_yaxis()
        figure.savefig(ROOT / "docs" / "figures" / "equal_cost.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
