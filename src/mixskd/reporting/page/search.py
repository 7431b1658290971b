"""The section of the report on searches (``mixskd tune``)."""

from __future__ import annotations

from mixskd.artifacts.search_file import read_search
from mixskd.drawing.plots import Plot
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.page.blocks import Block, Content, figures, table
from mixskd.reporting.plots.search import search_plots
from mixskd.reporting.tables.cells import Number, Table

MOST_ROWS = 10  # of the leaderboard


def search_section(evidence: Evidence) -> tuple[Content, list[Plot]]:
    """The section, and its figures: those of each search whose runs the report shows; empty without one.

    Raises UserError for a search.json that is damaged.
    """
    folders = dict.fromkeys(run.result.folder.parent.resolve() for run in evidence.runs)
    content, plots = Content(), list[Plot]()
    for number, path in enumerate(folder / "search.json" for folder in folders if (folder / "search.json").exists()):
        search = read_search(path)
        drawn = search_plots(search, f"search{number}" if number else "search")
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
             "val top-1 (%)": Number(trial["scores"][-1], 2) if trial["scores"] else None,
             "test top-1 (%)": _tested(search["tested"].get(str(trial["number"]), {})),
             "operations (1e12)": Number(trial["operations"] / 1e12, 3), "state": str(trial["state"]),
             "settings": ", ".join(f"{key} {_short(value)}" for key, value in trial["parameters"].items())}
            for trial in sorted(trials, key=lambda t: (-len(t["scores"]), -max(t["scores"][-1:], default=0.0)))
        ]  # fmt: skip
        content += table(rows[:MOST_ROWS]) + figures(drawn)
    return content, plots


def _tested(scores: dict[str, object]) -> Number | None:
    value = scores.get("top1")
    return Number(float(value), 2) if isinstance(value, int | float) else None


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
