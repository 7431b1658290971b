"""Figures of what the evaluation suites measured."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from mixskd.drawing.plots import SHARES, Plot, axes, colour, label, legend, line_plot, styled
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.plots.curves import MOST_LINES
from mixskd.runtime.files import slug

MOST_CONFUSIONS = 12


def suite_plots(evidence: Evidence) -> dict[str, list[Plot]]:
    """The figures by suite, of those that have a result."""
    made = {
        "calibration": _reliability(evidence),
        "fgsm": _attack(evidence, "fgsm", "the fast gradient sign method"),
        "pgd": _attack(evidence, "pgd", "projected gradient descent"),
        "corruption": _corruption(evidence),
        "linearity": _linearity(evidence),
        "confidence": _confidence(evidence),
        "accuracy": _confusion(evidence),
    }
    return {name: plots for name, plots in made.items() if plots}


def _reliability(evidence: Evidence) -> list[Plot]:
    series, most = [], MOST_LINES // 2
    for run, result in evidence.with_suite("calibration")[:most]:
        for part, title in (("before", run.label), ("after", f"{run.label}, scaled")):
            bins = [b for b in result[part]["reliability"] if b["images"]]
            text = f"{title} (ECE {result[part]['ece']:.2f} %)"
            series.append((text, *_columns(bins, "confidence", "accuracy")))
    if not series:
        return []
    caption = (
        "Reliability: on the dotted line confidence is accuracy. Dashed, after temperature scaling. Both are of the "
        f"images on which the temperature was not fitted.{_limit('runs', most)}"
    )
    return [line_plot("reliability", caption, series, "confidence", "accuracy", diagonal=True, paired=True)]


def _attack(evidence: Evidence, suite: str, method: str) -> list[Plot]:
    series = [
        (f"{run.label} (clean {r['clean_top1']:.1f} %)", *_columns(r["attacks"], "epsilon", "top1"))
        for run, r in evidence.with_suite(suite)[:MOST_LINES]
    ]
    caption = f"Top-1 under {method}.{_limit('runs')}"
    return [line_plot(suite, caption, series, "epsilon", "top-1 (%)", log_x=True)] if series else []


def _corruption(evidence: Evidence) -> list[Plot]:
    series = []
    for run, result in evidence.with_suite("corruption")[:MOST_LINES]:
        each = zip(*(c["by_severity"] for c in result["corruptions"].values()), strict=True)
        text = f"{run.label} (clean {result['clean_error']:.1f} %)"
        series.append((text, result["protocol"]["severities"], [fmean(errors) for errors in each]))
    caption = f"Mean error over the corruptions, by severity.{_limit('runs')}"
    return [line_plot("corruption", caption, series, "severity", "error (%)")] if series else []


def _linearity(evidence: Evidence) -> list[Plot]:
    having = evidence.with_suite("linearity")[:MOST_LINES]
    if not having:
        return []
    misses = [(run.label, *_columns(r["curve"], "lambda", "miss_rate")) for run, r in having]
    mass = [(run.label, *_columns(r["curve"], "lambda", "mass")) for run, r in having]
    caption = f"Miss rate between two images, over the share of the first.{_limit('runs')}"
    other = f"Probability of the two classes together.{_limit('runs')}"
    return [
        line_plot("linearity", caption, misses, "lambda", "miss rate (%)"),
        line_plot("linearity_mass", other, mass, "lambda", "probability"),
    ]


def _confidence(evidence: Evidence) -> list[Plot]:
    """Each comparison once, though the folders of all its runs hold it."""
    plots: list[Plot] = []
    seen: list[Any] = []
    for _, result in evidence.with_suite("confidence"):
        models = dict(sorted(result["models"].items()))
        if models in seen:
            continue
        seen.append(models)
        for which in ("predicted", "true"):
            with styled():
                figure, ax = axes(f"log-probability of the {which} class", "images")
                for index, (name, model) in enumerate(models.items()):
                    h = model[which]
                    ax.stairs(h["counts"], h["edges"], color=colour(index), linewidth=1.4,
                              label=label(f"{name} (mean {h['mean']:.2f})"))  # fmt: skip
                legend(ax)
            caption = f"The {which} class's log-probability on {result['shared_mistakes']} shared mistakes."
            plots.append(Plot(f"confidence_{len(seen)}_{which}", caption, figure))
    return plots


def _confusion(evidence: Evidence) -> list[Plot]:
    plots = []
    for number, (run, result) in enumerate(evidence.with_suite("accuracy")[:MOST_CONFUSIONS]):
        rows = [[100 * n / max(sum(row), 1) for n in row] for row in result["confusion"]]
        with styled():
            figure, ax = axes("called", "class", 4.2)
            ax.grid(visible=False)
            shown = ax.imshow(rows, cmap=SHARES, vmin=0, vmax=100, interpolation="nearest")
            figure.colorbar(shown, label="% of the class", shrink=0.8)
            if len(rows) <= 20:
                names = [label(str(c["name"]), 16) for c in result["classes"]]
                ax.set_xticks(range(len(rows)), names, rotation=90)
                ax.set_yticks(range(len(rows)), names)
        name = f"confusion_{number:02d}_{slug(run.label)[:60]}"
        plots.append(Plot(name, f"Confusion of {run.label} on {result['split']}.", figure))
    return plots


def _columns(rows: list[dict[str, float]], x: str, y: str) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [row[y] for row in rows]


def _limit(what: str, most: int = MOST_LINES) -> str:
    return f" At most {most} {what}, the highest top-1 first."
