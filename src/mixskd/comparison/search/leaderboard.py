"""The result of a search: leaderboard.md and .csv, best.yaml, and search.json for the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mixskd.artifacts.stored_files import FORMAT
from mixskd.comparison.search.study import INSIDE, Study
from mixskd.config import Experiment, read_yaml, to_dict
from mixskd.config.task_kinds import Score, monitor_of
from mixskd.errors.text import to_json
from mixskd.reporting.grouping import mean_and_std
from mixskd.reporting.tables.cells import Number, Table, comma_separated, markdown
from mixskd.runtime.files import write_text

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def winner(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the highest score on the last rung, the first of several; None if none came so far."""
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return max(done, key=lambda trial: (trial.value, -trial.number), default=None)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that reached the highest rung first; those of one rung by their score there."""
    return sorted(trials, key=lambda trial: (-len(trial.intermediate_values), -last_score(trial), trial.number))


def last_score(trial: FrozenTrial) -> float:
    """The score of the highest rung, in per cent; 0 if there is none."""
    values = trial.intermediate_values
    return float(values[max(values)]) if values else 0.0


def outcome(trial: FrozenTrial, last: int, title: str) -> str:
    """How a trial ended, in words."""
    if reason := trial.user_attrs.get("failure"):
        return f"stopped: {reason}"
    rungs = len(trial.intermediate_values)
    score = f"val {title} {last_score(trial):.2f} %" if rungs else "no score yet"
    if trial.state.name == "COMPLETE":
        return score
    if trial.state.name == "PRUNED":
        return f"{score} on rung {rungs} of {last + 1}, stopped there"
    return f"{score}, not ended"


def shown_settings(settings: Mapping[str, Any]) -> str:
    """The settings of a trial in a line, without method and backbone, numbers with three digits."""
    rest = {key: value for key, value in settings.items() if key not in ("method", "backbone")}
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in rest.items()
    )


def table(trials: Sequence[FrozenTrial], base: Experiment, last: int, title: str) -> Table:
    """The rows of the leaderboard, best first."""
    rows: Table = []
    for place, trial in enumerate(ranked(trials), start=1):
        attributes, settings = trial.user_attrs, trial.user_attrs["settings"]
        folds = [score for name, score in attributes.get("scores", {}).items() if f"-rung{last + 1}-fold" in name]
        rows.append({
            "place": Number(place), "trial": Number(trial.number + 1),
            "method": str(settings.get("method", base.method.name)),
            "backbone": str(settings.get("backbone", base.backbone)),
            f"val {title} (%)": Number(last_score(trial), 2) if trial.intermediate_values else None,
            **({"deviation over folds": Number(mean_and_std(folds)[1] or 0.0, 2) if folds else None}
               if any("-fold" in name for t in trials for name in t.user_attrs.get("scores", {})) else {}),
            "rung": f"{len(trial.intermediate_values)} of {last + 1}",
            "training operations (1e12)": Number(sum(attributes.get("operations", {}).values()) / 1e12, 3),
            "hours": Number(sum(attributes.get("seconds", {}).values()) / 3600, 3),
            "settings": "the recipe" if trial.number == 0 else shown_settings(settings) or "-",
            "ended": {"COMPLETE": "last rung", "PRUNED": "weak"}.get(trial.state.name, "not yet")
            if "failure" not in attributes else str(attributes["failure"]),
        })  # fmt: skip
    return rows


def write_leaderboard(folder: Path, study: Study, operations: Sequence[float], *, importance: bool = False) -> None:
    """Write leaderboard.md, leaderboard.csv and search.json of the trials until now; nothing if there are none.

    The ``importance`` of the settings takes long enough to be left out between two trials.
    """
    trials, tested = study.trials, stored_tests(folder)
    if not trials:
        return
    score, best = monitor_of(study.kind), winner(trials)
    rows = table(trials, study.space.base, len(operations) - 1, score.title)
    write_text(folder / "leaderboard.csv", comma_separated(rows))
    write_text(folder / "leaderboard.md", "\n".join([markdown(rows), *notes(trials, best, tested, score)]) + "\n")
    record = {
        "format": FORMAT,
        "operations": list(operations),
        "winner": None if best is None else best.number,
        "tested": {str(number): dict(scores) for number, scores in tested.items()},
        "importance": study.importance() if importance else {},
        "trials": [as_record(trial) for trial in trials],
        **({} if study.kind is None else {"task": study.kind.name}),
    }
    write_text(folder / "search.json", to_json(record, indent=1) + "\n")


def tests_file(folder: Path) -> Path:
    """Where the scores on ``test`` are stored."""
    return folder / INSIDE / "tested.yaml"


def stored_tests(folder: Path) -> dict[int, Any]:
    """The scores on ``test`` of winners until now, by the number of the trial."""
    path = tests_file(folder)
    return {int(number): scores for number, scores in read_yaml(path).items()} if path.exists() else {}


def as_record(trial: FrozenTrial) -> dict[str, Any]:
    """A trial for search.json."""
    attributes = trial.user_attrs
    return {
        "number": trial.number,
        "state": "failed" if "failure" in attributes else trial.state.name.lower(),
        "parameters": dict(trial.params),
        "scores": [trial.intermediate_values[key] for key in sorted(trial.intermediate_values)],
        "operations": sum(attributes.get("operations", {}).values()),
        "seconds": sum(attributes.get("seconds", {}).values()),
        "ended": None if trial.datetime_complete is None else trial.datetime_complete.timestamp(),
    }


def notes(
    trials: Sequence[FrozenTrial], best: FrozenTrial | None, tested: Mapping[int, Mapping[str, Any]], score: Score
) -> list[str]:
    """What a reader of the leaderboard must know."""
    found = [
        f"Scores are {score.title} on val at the highest rung of each trial. Only trials of the last rung are compared "
        "for the win. Operations are the counted training operations (FLOPs) of all runs of a trial."
    ]
    if best is not None:
        found.append(verdict(trials, best, tested.get(best.number), score))
    if len(tested) > 1:
        numbers = ", ".join(str(number + 1) for number in tested)
        found.append(f"The search was continued, and test was scored for each winner: trials {numbers}.")
    return [f"\n{note}" for note in found]


def verdict(trials: Sequence[FrozenTrial], best: FrozenTrial, test: Mapping[str, Any] | None, score: Score) -> str:
    """The winner's score on ``val`` beside the one on ``test``, in a line."""
    recipe = next((trial for trial in trials if trial.number == 0 and trial.state.name == "COMPLETE"), None)
    beside = "" if recipe is None or best.number == 0 else f" (the recipe: {recipe.value:.2f} %)"
    line = f"winner: trial {best.number + 1}, val {score.title} {best.value:.2f} %{beside}, "
    line += f"the highest of {len(trials)} trials"
    if test is None:
        return f"{line}; a score that was chosen so is too high, and there is no test split to measure by how much"
    return f"{line} and therefore a little too high; test {score.title} {test[score.name]:.2f} %, which chose nothing"


def write_best(folder: Path, experiment: Experiment) -> Path:
    """Write best.yaml, which ``mixskd train --config`` takes; it also scores ``test``."""
    run = dataclasses.replace(experiment.run, score_test=True)
    values = {k: v for k, v in to_dict(dataclasses.replace(experiment, run=run)).items() if k != "out"}
    path = folder / "best.yaml"
    write_text(path, yaml.safe_dump(values, sort_keys=False))
    return path
