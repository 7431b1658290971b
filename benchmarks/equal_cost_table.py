"""The arms of the comparisons P1 and P2 of docs/experiments.md, and their table with differences paired by draw."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mixskd.reporting.tables.paired_differences import t_interval

SCORES = {"top1": "test top-1", "loss": "log-loss", "ece": "ECE"}
PLAIN = ("baseline", "label_smoothing", "mixup", "cutmix")  # the best of them is the opponent of all others
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {"name": "baseline"},
    "label_smoothing": {"name": "label_smoothing"},
    "mixup": {"name": "mixup"},
    "cutmix": {"name": "cutmix"},
    "mixup_cutmix": {"name": "mixup_cutmix"},
    "ols": {"name": "ols"},
    "ict": {"name": "ict"},
    "cskd": {"name": "cskd"},
    "pskd": {"name": "pskd"},
    "light": {"name": "mixskd", "preset": "light"},
    "share": {"name": "mixskd", "preset": "light", "share": 0.25},
    "mixskd": {"name": "mixskd"},
}


def table(title: str, runs: Iterable[Path]) -> str:
    """Mean scores of each arm that has all draws, and its differences to the best plain arm; empty without runs."""
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for run in sorted(runs):
        summary = json.loads((run / "summary.json").read_text())
        draw, arm = summary["experiment"]["seed"], run.name.split("-")[0]
        scores.setdefault(arm, {})[draw] = {**summary["scores"]["test"], "ece": ece(run)}
        if probe := summary.get("probe"):
            scores.setdefault("probe", {})[draw] = {"top1": probe["scores"]["test"]["top1"]}
    draws = sorted(scores.get("baseline", {}))
    complete = {arm: values for arm, values in scores.items() if set(draws) <= set(values)}
    plain = [arm for arm in PLAIN if arm in complete]
    if not plain:
        return ""
    opponent = max(plain, key=lambda arm: sum(complete[arm][draw]["top1"] for draw in draws))
    lines = [f"| arm | {' | '.join(SCORES.values())} | top-1 less that of {opponent} | log-loss | ECE |"]
    lines.append("|---" * (2 * len(SCORES) + 1) + "|")
    for arm, values in complete.items():
        known = [score for score in SCORES if score in values[draws[0]]]
        means = {score: sum(values[draw][score] for draw in draws) / len(draws) for score in known}
        gains = {score: [values[draw][score] - complete[opponent][draw][score] for draw in draws] for score in known}
        cells = [f"{means[score]:.3f}" if score in means else "" for score in SCORES]
        differences = [interval(gains[score]) if score in gains and arm != opponent else "" for score in SCORES]
        lines.append(f"| {arm} | {' | '.join(cells + differences)} |")
    head = f"## {title}\n\nDraws {', '.join(map(str, draws))}. The best plain arm is {opponent}.\n\n"
    return head + "\n".join(lines) + "\n\n"


def ece(run: Path) -> float:
    """The expected calibration error of the probabilities as they are, in percent."""
    return float(json.loads((run / "evaluation" / "calibration.json").read_text())["whole"]["ece"])


def interval(values: list[float]) -> str:
    found = t_interval(values)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else "too few draws"
