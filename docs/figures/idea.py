"""Draw the idea of MixSKD as docs/figures/idea.svg:  python docs/figures/idea.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, PURPLE, GREY = "#3b6fb6", "#d9822b", "#7a4fa3", "#555555"


def box(ax: plt.Axes, x: float, y: float, text: str, colour: str, width: float = 1.7, height: float = 0.62) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.02,rounding_size=0.1",
            facecolor=colour + "22", edgecolor=colour, linewidth=1.4,
        )
    )  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=10, color="#222222")


def arrow(ax: plt.Axes, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-|>") -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=12, color=colour, linewidth=1.4))


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "mixskd"
    _, ax = plt.subplots(figsize=(10, 4.6))
    top, bottom = 3.3, 0.9
    box(ax, 0.6, top, "images x, x[π]", BLUE)
    box(ax, 0.6, bottom, "mix of images\nλx + (1-λ)x[π]", ORANGE)
    arrow(ax, (0.6, top - 0.4), (0.6, bottom + 0.4), GREY)
    box(ax, 3.1, (top + bottom) / 2, "one network\nbackbone + branches", GREY, 1.9, 1.1)
    arrow(ax, (1.5, top - 0.1), (2.15, (top + bottom) / 2 + 0.4), BLUE)
    arrow(ax, (1.5, bottom + 0.1), (2.15, (top + bottom) / 2 - 0.4), ORANGE)
    for x, name in ((5.6, "feature maps"), (8.1, "logits")):
        box(ax, x, top, f"mix of\n{name}", BLUE)
        box(ax, x, bottom, f"{name}\nof the mix", ORANGE)
        arrow(ax, (x, bottom + 0.4), (x, top - 0.4), PURPLE, "<|-|>")
    arrow(ax, (4.05, (top + bottom) / 2 + 0.4), (4.7, top - 0.1), BLUE)
    arrow(ax, (4.05, (top + bottom) / 2 - 0.4), (4.7, bottom + 0.1), ORANGE)
    for y in (top, bottom):
        arrow(ax, (6.5, y), (7.2, y), BLUE if y == top else ORANGE)
    ax.text(5.7, 2.1, "agree (Eq. 7, 8)", fontsize=9, color=PURPLE, va="center")
    ax.text(8.2, 2.1, "teach each\nother (Eq. 10)", fontsize=9, color=PURPLE, va="center")
    box(ax, 10.5, (top + bottom) / 2, "self-teacher\nall maps, Eq. 11", PURPLE, 1.6, 0.9)
    arrow(ax, (10.3, (top + bottom) / 2 + 0.5), (9.0, top), PURPLE)
    arrow(ax, (10.3, (top + bottom) / 2 - 0.5), (9.0, bottom), PURPLE)
    ax.text(10.2, 3.35, "soft labels (Eq. 12)", fontsize=9, color=PURPLE, ha="center")
    ax.set_xlim(-0.4, 11.5)
    ax.set_ylim(0.3, 3.9)
    ax.axis("off")
    plt.savefig(Path(__file__).with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
