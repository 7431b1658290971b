"""Figures of the results of evaluation suites."""

from itertools import product
from statistics import fmean
from typing import Any

from mixskd.drawing.plots import INK, SHARES, Plot, axes, label, legend, line_plot, styled
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.plots.colours import Looks
from mixskd.reporting.plots.curves import MOST_LINES
from mixskd.runtime.files import slug

MOST_CONFUSIONS = 12
MOST_NAMED = 20  # classes of a matrix whose rows have names and whose cells have numbers


def suite_plots(evidence: Evidence, looks: Looks) -> dict[str, list[Plot]]:
    """The figures by suite, for the suites that have a result."""
    made = {
        "calibration": _reliability(evidence, looks),
        "fgsm": _attack(evidence, looks, "fgsm", "the fast gradient sign method"),
        "pgd": _attack(evidence, looks, "pgd", "projected gradient descent"),
        "corruption": _corruption(evidence, looks),
        "linearity": _linearity(evidence, looks),
        "confidence": _confidence(evidence, looks),
        "accuracy": _confusion(evidence),
    }
    return {name: plots for name, plots in made.items() if plots}


def _reliability(evidence: Evidence, looks: Looks) -> list[Plot]:
    series, drawn, most = [], [], MOST_LINES // 2
    for run, result in evidence.with_suite("calibration")[:most]:
        for part, title in (("before", run.label), ("after", f"{run.label}, scaled")):
            bins = [b for b in result[part]["reliability"] if b["images"]]
            text = f"{title} (ECE {result[part]['ece']:.2f} %)"
            series.append((text, *_columns(bins, "confidence", "accuracy")))
            drawn.append({**looks.run(run), "linestyle": "-" if part == "before" else "--"})
    if not series:
        return []
    caption = (
        "Reliability: on the dotted line confidence is accuracy. Dashed, after temperature scaling. Both are of the "
        f"images on which the temperature was not fitted.{_limit(most)}"
    )
    return [line_plot("reliability", caption, series, "confidence", "accuracy", looks=drawn, diagonal=True)]


def _attack(evidence: Evidence, looks: Looks, suite: str, method: str) -> list[Plot]:
    having = evidence.with_suite(suite)[:MOST_LINES]
    series = [
        (f"{run.label} (clean {r['clean_top1']:.1f} %)", *_columns(r["attacks"], "epsilon", "top1"))
        for run, r in having
    ]
    if not series:
        return []
    caption, drawn = f"Top-1 under {method}.{_limit()}", [looks.run(run) for run, _ in having]
    return [line_plot(suite, caption, series, "epsilon", "top-1 (%)", looks=drawn, log_x=True)]


def _corruption(evidence: Evidence, looks: Looks) -> list[Plot]:
    series, having = [], evidence.with_suite("corruption")[:MOST_LINES]
    for run, result in having:
        each = zip(*(c["by_severity"] for c in result["corruptions"].values()), strict=True)
        text = f"{run.label} (clean {result['clean_error']:.1f} %)"
        series.append((text, result["protocol"]["severities"], [fmean(errors) for errors in each]))
    caption = f"Mean error over the corruptions, by severity.{_limit()}"
    drawn = [looks.run(run) for run, _ in having]
    return [line_plot("corruption", caption, series, "severity", "error (%)", looks=drawn)] if series else []


def _linearity(evidence: Evidence, looks: Looks) -> list[Plot]:
    having = evidence.with_suite("linearity")[:MOST_LINES]
    if not having:
        return []
    misses = [(run.label, *_columns(r["curve"], "lambda", "miss_rate")) for run, r in having]
    mass = [(run.label, *_columns(r["curve"], "lambda", "mass")) for run, r in having]
    caption = f"Miss rate between two images, over the share of the first.{_limit()}"
    other = f"Probability of the two classes together.{_limit()}"
    drawn = [looks.run(run) for run, _ in having]
    return [
        line_plot("linearity", caption, misses, "lambda", "miss rate (%)", looks=drawn),
        line_plot("linearity_mass", other, mass, "lambda", "probability", looks=drawn),
    ]


def _confidence(evidence: Evidence, looks: Looks) -> list[Plot]:
    """Each comparison once, although every run in it has a copy of the result."""
    plots: list[Plot] = []
    drawn: list[Any] = []
    for _, result in evidence.with_suite("confidence"):
        models = dict(sorted(result["models"].items()))
        if models in drawn:
            continue
        drawn.append(models)
        for which in ("predicted", "true"):
            with styled():
                figure, ax = axes(f"log-probability of the {which} class", "images")
                for index, (name, model) in enumerate(models.items()):
                    h = model[which]
                    look = looks.named(name, index)
                    ax.stairs(h["counts"], h["edges"], color=look["color"], linestyle=look["linestyle"], linewidth=1.4,
                              label=label(f"{name} (mean {h['mean']:.2f})"))  # fmt: skip
                legend(ax)
            caption = f"The {which} class's log-probability on {result['shared_mistakes']} shared mistakes."
            plots.append(Plot(f"confidence_{len(drawn)}_{which}", caption, figure))
    return plots


def _confusion(evidence: Evidence) -> list[Plot]:
    """Confusion matrices; those of few classes have the numbers of images in their cells."""
    plots = []
    measured = [pair for pair in evidence.with_suite("accuracy") if pair[1].get("confusion")]
    for number, (run, result) in enumerate(measured[:MOST_CONFUSIONS]):
        counts, classes = result["confusion"], len(result["confusion"])
        shares = [[100 * n / max(sum(row), 1) for n in row] for row in counts]
        few = classes <= MOST_NAMED
        with styled():
            figure, ax = axes("called", "class", *((4.2, 4.8) if classes <= 10 or not few else (6.4, 7.0)))
            ax.grid(visible=False)
            shown = ax.imshow(shares, cmap=SHARES, vmin=0, vmax=100, interpolation="nearest")
            figure.colorbar(shown, label="% of the class", shrink=0.8)
            if few:
                names = [label(str(c["name"]), 16) for c in result["classes"]]
                ax.set_xticks(range(classes), names, rotation=90)
                ax.set_yticks(range(classes), names)
                for row, column in product(range(classes), repeat=2):
                    if counts[row][column]:
                        colour = "white" if shares[row][column] > 60 else INK
                        ax.text(
                            column, row, str(counts[row][column]), ha="center", va="center", color=colour, fontsize=8
                        )
        name = f"confusion_{number:02d}_{slug(run.label)[:60]}"
        text = f"Confusion of {run.label} on {result['split']}{', in images' if few else ''}."
        plots.append(Plot(name, text, figure))
    return plots


def _columns(rows: list[dict[str, float]], x: str, y: str) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [row[y] for row in rows]


def _limit(most: int = MOST_LINES) -> str:
    return f" At most {most} runs, the highest top-1 first."
