"""Figures as SVG for a page and as files for a paper, drawn by matplotlib without a screen."""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mixskd.errors.text import safe, visible

INK = "#010203"  # text and axes; on the page this colour is replaced by that of the page's text
SHORT = 26  # longest legend entry, in letters, of which two fit side by side
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "mixskd", "text.parse_math": False, "font.size": 9, "savefig.dpi": 300,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.4,
}  # fmt: skip

# From transparent to blue, fast at first so that small shares are visible. 0 shows the page, light or dark.
OPACITY = {0.0: 0.0, 0.1: 0.25, 1.0: 1.0}
SHARES = LinearSegmentedColormap.from_list("shares", [(at, (0.15, 0.45, 0.85, much)) for at, much in OPACITY.items()])


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files, and a caption in plain text."""

    name: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """The ``<svg>`` element alone; text and axes take the colour of the page's text."""
        text = io.StringIO()
        # Identifiers differ from figure to figure: one that a closed part of the page defines cannot be used outside.
        with styled(), matplotlib.rc_context({"svg.hashsalt": self.name}):
            self.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        body = text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")
        body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
        body = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|Quad)[\w.]*"', "", body)
        return body.replace("<svg ", f'<svg role="img" aria-label="{safe(self.caption, "html")}" ', 1)

    def write(self, folder: Path) -> None:
        """NAME.svg and NAME.png in ``folder``."""
        with styled():
            self.figure.savefig(folder / f"{self.name}.svg", metadata={"Date": None})
            self.figure.savefig(folder / f"{self.name}.png")


@contextmanager
def styled() -> Iterator[None]:
    """Context with our style; no warning about letters that the font lacks, since a browser has other fonts."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def axes(x: str, y: str, height: float = 3.0, width: float = 4.8) -> tuple[Figure, Axes]:
    """A figure (size in inches) with one pair of axes labelled ``x`` and ``y``; call it inside :func:`styled`.

    The default width keeps the text readable on a phone, where the page shrinks the figure.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.25)
    return figure, ax


def colour(index: int) -> tuple[float, ...]:
    """The colour of line ``index``; colours repeat after 10."""
    return tuple(colormaps["tab10"](index % 10))


def label(text: str, most: int = 48) -> str:
    """``text`` of a user for a legend: one line of at most ``most`` letters."""
    text = visible(text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return f" {text}" if text.startswith("_") else text  # matplotlib skips labels that begin with _


def legend(ax: Axes) -> None:
    """Add a legend below the axes, if anything in them has a label; the figure grows by its height."""
    texts = ax.get_legend_handles_labels()[1]
    if not texts:
        return
    columns = 2 if len(texts) > 1 and max(map(len, texts)) <= SHORT else 1
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(len(texts) / columns))
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8)


def line_plot(
    name: str, caption: str, series: Sequence[tuple[str, Sequence[float], Sequence[float]]], x: str, y: str, *,
    looks: Sequence[Mapping[str, Any]] | None = None, log_x: bool = False, log_y: bool = False, diagonal: bool = False,
) -> Plot:  # fmt: skip
    """One line for each (label, xs, ys), drawn as ``looks`` says, or each in the next colour."""
    with styled():
        figure, ax = axes(x, y)
        if diagonal:
            ax.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        looks = looks or [{"color": colour(index), "marker": "o"} for index in range(len(series))]
        few = all(len(xs) <= 15 for _, xs, _ in series)
        for (text, xs, ys), look in zip(series, looks, strict=True):
            ax.plot(
                xs, ys, **{**look, "marker": look.get("marker", "") if few else ""}, markersize=3, label=label(text)
            )
        for logarithmic, axis in ((log_x, ax.xaxis), (log_y, ax.yaxis)):
            if logarithmic:
                (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # powers need parsed text
                axis.set_minor_formatter(NullFormatter())
        if not log_x and all(float(x).is_integer() for _, xs, _ in series for x in xs):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(ax)
    return Plot(name, caption, figure)
