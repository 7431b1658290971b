"""The section of the report on searches (``mixskd tune``): its figures and its leaderboard."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from mixskd.artifacts.stored_files import read_search
from mixskd.config.task_kinds import Score, kind_of, monitor_of
from mixskd.drawing.plots import Plot, axes, colour, label, legend, styled
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.page.blocks import Block, Content, figures, table
from mixskd.reporting.tables.cells import Number, Table

MOST_ROWS = 10  # of the leaderboard
MOST_AXES = 8  # of the parallel coordinates
MOST_TICKS = 8  # of an axis with names
DECADE = 10.0  # from this ratio on, numbers are shown on a logarithmic scale


def search_section(evidence: Evidence) -> tuple[Content, list[Plot]]:
    """The section, and its figures: those of each search whose runs the report shows; empty without one.

    Raises UserError for a search.json that is damaged.
    """
    folders = dict.fromkeys(run.result.folder.parent.resolve() for run in evidence.runs)
    content, plots = Content(), list[Plot]()
    for number, path in enumerate(folder / "search.json" for folder in folders if (folder / "search.json").exists()):
        search = read_search(path)
        score, drawn = _score(search), search_plots(search, f"search{number}" if number else "search")
        plots += drawn
        trials, rungs = search["trials"], len(search["operations"])
        ended = sum(len(trial["scores"]) == rungs for trial in trials)
        total = sum(trial["operations"] for trial in trials)
        content.append(Block("text",
            f"{path.parent.name}: {len(trials)} trials, {ended} of them on the last rung of {rungs}, with "
            f"{total / 1e12:,.2f}e12 training operations. The scores on val chose the winner, so the winner's is a "
            "little too high; test chose nothing."
        ))  # fmt: skip
        rows: Table = [
            {"trial": Number(trial["number"] + 1), "rung": f"{len(trial['scores'])} of {rungs}",
             f"val {score.title} (%)": Number(trial["scores"][-1], 2) if trial["scores"] else None,
             f"test {score.title} (%)": _tested(search["tested"].get(str(trial["number"]), {}).get(score.name)),
             "operations (1e12)": Number(trial["operations"] / 1e12, 3), "state": str(trial["state"]),
             "settings": ", ".join(f"{key} {_short(value)}" for key, value in trial["parameters"].items())}
            for trial in sorted(trials, key=lambda t: (-len(t["scores"]), -max(t["scores"][-1:], default=0.0)))
        ]  # fmt: skip
        content += table(rows[:MOST_ROWS]) + figures(drawn)
    return content, plots


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _score(search: Mapping[str, Any]) -> Score:
    """The score by which the trials of a search.json are ranked."""
    return monitor_of(kind_of("", search.get("task")))


def _tested(value: object) -> Number | None:
    return Number(float(value), 2) if isinstance(value, int | float) else None


def search_plots(search: Mapping[str, Any], name: str = "search") -> list[Plot]:
    """The figures of the content of a search.json that have something to show; ``name`` begins their names."""
    scored = [trial for trial in search["trials"] if trial["scores"]]
    plots = [_course(scored, len(search["operations"]), f"{name}_course", _score(search).title)] if scored else []
    plots += [_parallel(scored, f"{name}_parallel", _score(search).title)] if len(scored) > 1 else []
    plots += [_importance(search["importance"], f"{name}_importance")] if search["importance"] else []
    return plots


def _course(trials: Sequence[Mapping[str, Any]], rungs: int, name: str, title: str) -> Plot:
    order = sorted(trials, key=lambda trial: (trial["ended"] or math.inf, trial["number"]))
    spent, best, total, highest = [0.0], list[float](), 0.0, -math.inf
    points: dict[int, list[tuple[float, float]]] = {}
    for trial in order:
        total += trial["operations"] / 1e12
        points.setdefault(len(trial["scores"]), []).append((total, trial["scores"][-1]))
        if len(trial["scores"]) == rungs:
            highest = max(highest, trial["scores"][-1])
            spent.append(total)
            best.append(highest)
    with styled():
        figure, ax = axes("training operations of the search (1e12)", f"{title} on val (%)")
        for rung, found in sorted(points.items()):
            ax.plot(*zip(*found, strict=True), linestyle="none", marker="o^s"[min(rung, 3) - 1], markersize=4,
                    color=colour(rung), label=f"ended on rung {rung} of {rungs}")  # fmt: skip
        if best:
            ax.step([*spent[1:], total], [*best, highest], where="post", color="grey", label="best of the last rung")
        legend(ax)
    return Plot(name, "Each trial by the operations that the search had used when it ended.", figure)


def _parallel(trials: Sequence[Mapping[str, Any]], name: str, title: str) -> Plot:
    names = list(dict.fromkeys(key for trial in trials for key in trial["parameters"]))[:MOST_AXES]
    values = {key: [trial["parameters"].get(key) for trial in trials] for key in names}
    places = {key: _places(column) for key, column in values.items()}
    scores = [float(trial["scores"][0]) for trial in trials]
    places[f"val {title} (%)"] = _places(scores)
    low, high = min(scores), max(scores)
    with styled():
        figure, ax = axes("", "")
        ax.grid(visible=False)
        for index in sorted(range(len(trials)), key=scores.__getitem__):
            share = (scores[index] - low) / (high - low) if high > low else 1.0
            points = [(x, at[index]) for x, (at, _) in enumerate(places.values()) if at[index] is not None]
            ax.plot(*zip(*points, strict=True), color=colour(0), alpha=0.15 + 0.85 * share, linewidth=0.8 + share)
        for x, (_, ticks) in enumerate(places.values()):
            _axis(ax, x, ticks)
        ax.set_xticks(range(len(places)), [label(key, 20) for key in places], rotation=20, ha="right", fontsize=7)
        ax.set_yticks([])
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.set_xlim(-0.1, len(places) - 0.3)
    caption = (
        "A line for each trial: its settings, and its score on the first rung, which all trials have. The strongest "
        "lines have the highest scores."
    )
    return Plot(name, caption, figure)


def _places(column: Sequence[Any]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Where each value of a setting is on its axis, from 0 to 1 (None for a trial without it), and the axis's ticks."""
    known = [value for value in column if value is not None]
    if all(type(value) in (int, float) for value in known) and len(set(known)) > 2:
        low, high = min(known), max(known)
        scale = math.log if low > 0 and high / low >= DECADE else float
        span = scale(high) - scale(low)
        at = [None if value is None else (scale(value) - scale(low)) / span for value in column]
        return at, [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]
    texts = sorted({str(value) for value in known})
    place = {text: index / max(len(texts) - 1, 1) for index, text in enumerate(texts)}
    every = math.ceil(len(texts) / MOST_TICKS)
    return (
        [None if value is None else place[str(value)] for value in column],
        [(at, text) for text, at in list(place.items())[::every]],
    )


def _axis(ax: Axes, x: int, ticks: Sequence[tuple[float, str]]) -> None:
    ax.plot([x, x], [0, 1], color="grey", linewidth=0.8, zorder=0)
    for at, text in ticks:
        ax.annotate(label(text, 16), (x, at), (3, 0), textcoords="offset points", fontsize=6.5, va="center")


def _importance(shares: Mapping[str, float], name: str) -> Plot:
    shown = list(shares.items())[:MOST_AXES][::-1]
    with styled():
        figure, ax = axes("share of the differences in score", "", height=0.9 + 0.28 * len(shown))
        ax.barh([label(key, 26) for key, _ in shown], [share for _, share in shown], color=colour(0))
        ax.grid(visible=False, axis="y")
    caption = (
        "How much of the differences between the scores of the first rung each setting explains (Optuna). With few "
        "trials this is rough."
    )
    return Plot(name, caption, figure)
