"""The arms of the comparisons P1 and P2 of docs/experiments.md, and their table with differences paired by draw."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from mixskd.reporting.tables.differences import t_interval

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


def scores_of(runs: Iterable[Path]) -> dict[str, dict[int, dict[str, float]]]:
    """The scores on ``test`` by arm and draw, of the arms that have all draws, with the probe's where there is one."""
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for run in sorted(runs):
        summary = json.loads((run / "summary.json").read_text())
        draw, arm = summary["experiment"]["seed"], run.name.split("-")[0]
        scores.setdefault(arm, {})[draw] = {**summary["scores"]["test"], "ece": ece(run)}
        if probe := summary.get("probe"):
            scores.setdefault("probe", {})[draw] = {"top1": probe["scores"]["test"]["top1"]}
    draws = scores.get("baseline", {}).keys()
    return {arm: values for arm, values in scores.items() if draws <= values.keys()}


def best_plain(scores: dict[str, dict[int, dict[str, float]]]) -> str:
    """The plain arm with the highest mean top-1: the opponent of all others."""
    return max((arm for arm in PLAIN if arm in scores), key=lambda arm: mean(s["top1"] for s in scores[arm].values()))


def gains(scores: dict[str, dict[int, dict[str, float]]], arm: str, opponent: str, score: str) -> list[float]:
    """What ``arm`` has more than ``opponent``, draw by draw."""
    return [scores[arm][draw][score] - scores[opponent][draw][score] for draw in sorted(scores[opponent])]


def table(title: str, runs: Iterable[Path]) -> str:
    """Mean scores of each arm that has all draws, and its differences to the best plain arm; empty without runs."""
    scores = scores_of(runs)
    if not scores:
        return ""
    opponent = best_plain(scores)
    draws = sorted(scores[opponent])
    lines = [f"| arm | {' | '.join(SCORES.values())} | top-1 less that of {opponent} | log-loss | ECE |"]
    lines.append("|---" * (2 * len(SCORES) + 1) + "|")
    for arm, values in scores.items():
        known = [score for score in SCORES if score in values[draws[0]]]
        means = [f"{mean(values[draw][score] for draw in draws):.3f}" if score in known else "" for score in SCORES]
        differences = [
            interval(gains(scores, arm, opponent, score)) if score in known and arm != opponent else ""
            for score in SCORES
        ]
        lines.append(f"| {arm} | {' | '.join(means + differences)} |")
    head = f"## {title}\n\nDraws {', '.join(map(str, draws))}. The best plain arm is {opponent}.\n\n"
    return head + "\n".join(lines) + "\n\n"


def ece(run: Path) -> float:
    """The expected calibration error of the probabilities as they are, in percent."""
    return float(json.loads((run / "evaluation" / "calibration.json").read_text())["whole"]["ece"])


def interval(values: list[float]) -> str:
    found = t_interval(values)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else "too few draws"
