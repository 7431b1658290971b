"""Compare ``mixskd tune`` with the exhaustive grid of the same space: score and training operations.

``python benchmarks/tune_against_grid.py benchmarks/tune_digits.yaml --out results/tune_digits`` trains every point of
the grid at the length of the last rung, and then searches once for each seed with a fifth of the grid's operations.
``val`` alone chooses, and the winners are scored on ``test``. The same call continues after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from mixskd.artifacts.results import read_result
from mixskd.comparison.costs import Costs
from mixskd.comparison.display import RunsDisplay
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.plan import Run
from mixskd.comparison.scheduler import carry_out_all
from mixskd.comparison.search.space import Choice, space_from
from mixskd.comparison.search.tune import tune, with_val
from mixskd.config import read_yaml
from mixskd.config.build import build_experiment
from mixskd.evaluation.split_scores import evaluate
from mixskd.runtime.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("description", type=Path, help="a file with base, grid, space, share and seeds")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    described = read_yaml(arguments.description)
    base = build_experiment({**described["base"], "out": ""})
    grid = exhaustive(base, described["grid"], arguments.out / "grid", arguments.jobs)
    rows = [{"what": "grid", **grid}]
    for seed in described["seeds"]:
        experiment = dataclasses.replace(base, run=dataclasses.replace(base.run, seed=seed))
        folder = arguments.out / f"search{seed}"
        budget = grid["operations"] * described["share"]
        tune(experiment, space=described["space"], operations=budget, out=folder, jobs=arguments.jobs)
        rows.append({"what": f"search, seed {seed}", **searched(folder, grid)})
    write_text(arguments.out / "table.json", json.dumps(rows, indent=1) + "\n")
    write_text(arguments.out / "table.md", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | runs | operations | seconds | val | test | winner |", "|---" * 7 + "|"]
    for row in rows:
        lines.append(
            f"| {row['what']} | {row['runs']} | {row.get('share', 1):.2f} | {3600 * row['hours']:.0f} "
            f"| {row['val']:.2f} | {row['test']:.2f} | {row['winner']} |"
        )
    return "\n".join(lines) + "\n"


def exhaustive(base: Any, values: dict[str, Any], folder: Path, jobs: int) -> dict[str, Any]:
    """Every point of the grid, with the operations of ``base``; the best of them on ``val``."""
    base, data = with_val(base, None)
    space, costs = space_from(base, values), Costs(data)
    full = costs.whole(base)
    choices = {key: choice.values for key, choice in space.settings.items() if isinstance(choice, Choice)}
    runs = []
    for arm, *point in itertools.product(space.arms, *choices.values()):
        settings = {"method": arm.label, **dict(zip(choices, point, strict=True))}
        experiment = costs.fitted(space.experiment(settings), full)
        name = f"run{len(runs):03d}"
        runs.append(Run(folder, name, name, dataclasses.replace(experiment, out=str(folder / name))))
    launcher = LAUNCHERS["local"](folder, jobs, "cpu", {})
    try:
        carry_out_all(runs, launcher, RunsDisplay(runs))
    finally:
        launcher.close()
    results = {run.name: read_result(run.files.path) for run in runs if run.finished}
    best = max(results.values(), key=lambda result: result.summary["scores"]["val"]["top1"])
    return {
        "runs": len(results), "operations": sum(costs.whole(run.experiment) for run in runs),
        "hours": sum(result.summary["seconds"] for result in results.values()) / 3600,
        "val": best.summary["scores"]["val"]["top1"], "test": evaluate(best.folder, split="test")["top1"],
        "winner": f"{best.experiment.method.name}, lr {best.experiment.optim.lr:g}",
    }  # fmt: skip


def searched(folder: Path, grid: dict[str, Any]) -> dict[str, Any]:
    search = json.loads((folder / "search.json").read_text())
    winner = next(trial for trial in search["trials"] if trial["number"] == search["winner"])
    operations = sum(trial["operations"] for trial in search["trials"])
    return {
        "runs": len(search["trials"]), "operations": operations, "share": operations / grid["operations"],
        "hours": sum(trial["seconds"] for trial in search["trials"]) / 3600,
        "val": winner["scores"][-1], "test": search["tested"][str(search["winner"])]["top1"],
        "winner": f"{winner['parameters'].get('method')}, lr {winner['parameters'].get('optim.lr'):g}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
