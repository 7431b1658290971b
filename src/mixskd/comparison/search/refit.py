"""The end of a search: score the winner on test, and train it again on train and val together."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mixskd.comparison.display import Display
from mixskd.comparison.launchers import Launcher
from mixskd.comparison.plan import Run
from mixskd.comparison.scheduler import carry_out_all
from mixskd.config import Experiment
from mixskd.config.task_kinds import kind_of, monitor_of
from mixskd.errors import UserError
from mixskd.evaluation.split_scores import evaluate


def scores_on_test(folders: Sequence[Path]) -> dict[str, Any]:
    """The score that ranks, in per cent on ``test``: by its name the mean over the winner's runs, and each of them."""
    found = [evaluate(folder, split="test") for folder in folders]
    name = monitor_of(kind_of("", found[0]["task"])).name
    each = [float(scores[name]) for scores in found]
    return {name: fmean(each), "each": each}


def refitted(experiment: Experiment) -> Experiment:
    """``experiment`` on the images of train and val together; the weights of the last epoch are kept."""
    own_val = experiment.data.val_holdout == 0  # else val was a part of train
    data = dataclasses.replace(experiment.data, val_holdout=0.0, folds=None, fold=0, train_on_val=own_val)
    run = dataclasses.replace(experiment.run, score_test=True, keep="auto", patience=0)
    return dataclasses.replace(experiment, data=data, run=run)


def train_winner(folder: Path, experiment: Experiment, launcher: Launcher, display: Display) -> Run:
    """Train the winner's ``experiment`` on train and val in ``folder/refit``. Raises UserError if that fails."""
    placed = dataclasses.replace(refitted(experiment), out=str(folder / "refit"))
    run = Run(folder, "refit", "refit", placed)
    if changed := run.other_settings():
        raise UserError(f"{run.files.path} holds the refit of another winner: {changed}; remove that folder")
    if reason := carry_out_all([run], launcher, display).get(run.name):
        raise UserError(f"the refit failed: {reason}")
    return run
