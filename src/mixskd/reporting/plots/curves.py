"""Learning curves, and the cost of a setting against its accuracy."""

import re
from collections.abc import Sequence
from typing import Any

from mixskd.drawing.plots import Plot, axes, label, legend, line_plot, styled
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.grouping import Repeated, mean_and_std
from mixskd.reporting.plots.colours import Looks
from mixskd.runtime.files import slug

MOST_LINES = 10  # in one figure; more colours cannot be distinguished
MOST_TERMS = 30  # figures of loss terms, and of classifiers that are used only in training
Series = tuple[str, list[float], list[float]]  # its label, x and y
HEAD = re.compile(r"(val|test)_.+_top1")  # the columns of run.all_heads
SCORES = (
    "val_top1", "test_top1", "val_top5", "test_top5", "val_map", "test_map", "val_f1", "test_f1", "val_ap", "test_ap",
    "val_ap50", "test_ap50", "val_miou", "test_miou", "val_loss", "test_loss", "train_loss",
)  # fmt: skip


def score_plots(evidence: Evidence, looks: Looks) -> list[Plot]:
    """A figure for each score and the whole loss over the epochs, a line for each setting's first run."""
    plots: list[Plot] = []
    for name in SCORES:
        having = [(line, run.curves[name]) for line, run in evidence.first_runs() if len(run.curves.get(name, ())) > 1]
        if not having:
            continue
        series = [as_series(line.label, curve) for line, curve in having[:MOST_LINES]]
        drawn = [looks.line(line) for line, _ in having[:MOST_LINES]]
        caption = f"{name} over the epochs, {first_runs_of(len(having))}"
        y_label = name if "loss" in name else f"{name} (%)"
        plots.append(line_plot(f"curve_{name}", caption, series, "epoch", y_label, looks=drawn))
    return plots


def as_series(name: str, curve: Sequence[tuple[float, float]]) -> Series:
    """A curve of (x, y) pairs as :func:`mixskd.drawing.plots.line_plot` takes it."""
    return name, [x for x, _ in curve], [y for _, y in curve]


def first_runs_of(settings: int) -> str:
    """The end of a caption: which of the ``settings`` a figure shows."""
    limit = f"; the {MOST_LINES} settings with the highest score of {settings}" if settings > MOST_LINES else ""
    return f"the first run of each setting{limit}."


def operation_plots(evidence: Evidence, looks: Looks) -> list[Plot]:
    """Top-1 over the operations that the training had spent, a line for each classifier's first run.

    The operations are counted, as in the tables; those of evaluations and of a teacher's training are not among them.
    """
    series: list[Series] = []
    drawn: list[dict[str, Any]] = []
    for line, run in evidence.first_runs():
        curve = next((run.curves[name] for name in ("val_top1", "test_top1") if name in run.curves), ())
        if line.kind is None and len(curve) > 1:
            spent = run.result.summary["images"] * line.cost.training_flops / 1e12 / curve[-1][0]  # of an epoch
            series.append(as_series(line.label, [(epoch * spent, value) for epoch, value in curve]))
            drawn.append(looks.line(line))
    if not series:
        return []
    caption = f"Top-1 over the operations spent in training, {first_runs_of(len(series))}"
    shown, looks_of = series[:MOST_LINES], drawn[:MOST_LINES]
    return [line_plot("operations", caption, shown, "TFLOPs in training", "top-1 (%)", looks=looks_of)]


def head_plots(evidence: Evidence) -> list[Plot]:
    """For each setting whose run scored every classifier (``run.all_heads``), their top-1 over the epochs."""
    plots: list[Plot] = []
    for line, run in evidence.first_runs():
        heads = {name: points for name, points in run.curves.items() if HEAD.fullmatch(name) and len(points) > 1}
        if not heads or len(plots) == MOST_TERMS:
            continue
        series = [as_series(name.removesuffix("_top1"), points) for name, points in heads.items()]
        name = f"heads_{len(plots):02d}_{slug(line.label)[:60]}"
        caption = f"Top-1 of each classifier of {run.label}; only the backbone is deployed."
        plots.append(line_plot(name, caption, series, "epoch", "top-1 (%)"))
    return plots


def term_plots(evidence: Evidence) -> list[Plot]:
    """For each setting the terms of its loss, and the learning rate, over the epochs of its first run."""
    plots: list[Plot] = []
    for line, run in evidence.first_runs()[:MOST_TERMS]:
        terms = {k: v for k, v in run.curves.items() if (k.startswith("train_") or k == "lr") and len(v) > 1}
        series = [as_series(name, curve) for name, curve in terms.items()]
        if not series:
            continue
        positive = all(value > 0 for curve in terms.values() for _, value in curve)
        name = f"terms_{len(plots):02d}_{slug(line.label)[:60]}"
        caption = f"Loss terms and learning rate of {run.label}."
        plots.append(line_plot(name, caption, series, "epoch", "value", log_y=positive))
    return plots


def cost_plot(lines: Sequence[Repeated], looks: Looks) -> Plot:
    """Top-1 against the operations of the training of one original image."""
    with styled():
        figure, ax = axes("MFLOPs an original in training", "top-1 (%)")
        for line in lines:
            mean, std = mean_and_std([result.top1 for result in line.results])
            look = {**looks.line(line), "linestyle": "none"}
            ax.errorbar(line.cost.training_flops / 1e6, mean, yerr=std, capsize=2, label=label(line.label), **look)
        legend(ax)
    caption = "FLOPs of training on one original image against top-1; the bars are the deviation over the seeds."
    return Plot("cost", caption, figure)
