"""Run a search from its settings to its winner: ``tune``. Several calls and processes can share its folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixskd.artifacts.results import read_result
from mixskd.comparison.costs import Costs
from mixskd.comparison.launchers import LAUNCHERS, Launcher, check_launcher
from mixskd.comparison.plan import Run
from mixskd.comparison.scheduler import carry_out_all
from mixskd.comparison.search.display import TrialsDisplay
from mixskd.comparison.search.leaderboard import (
    stored_tests,
    tests_file,
    verdict,
    winner,
    write_best,
    write_leaderboard,
)
from mixskd.comparison.search.refit import scores_on_test, train_winner
from mixskd.comparison.search.rungs import SHARE, Rungs, rungs_for
from mixskd.comparison.search.space import USUAL, Space, space_from
from mixskd.comparison.search.study import INSIDE, Study
from mixskd.comparison.search.successive_halving import Limits, Search
from mixskd.config import Experiment, read_yaml, to_dict
from mixskd.config.task_kinds import MULTILABEL, monitor_of
from mixskd.data import DataBundle, load_data
from mixskd.data.policies import check_policy
from mixskd.errors import UserError
from mixskd.methods import method_class
from mixskd.runtime.files import locked, write_text
from mixskd.runtime.packages import needed

VAL_HOLDOUT = 0.2  # of the training images, if the data have no val
TRIALS = 20  # if no limit is given


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        folder: where runs and tables are.
        best: best.yaml, the winner's experiment; None if no trial came to the last rung.
        model: the folder of the winner's run, or of the refit.
        line: the winner's scores in a line.
    """

    folder: Path
    best: Path | None
    model: Path | None
    line: str

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the leaderboard."""
        return (self.folder / "leaderboard.md").read_text(encoding="utf-8")


def tune(
    base: Experiment,
    /,
    *,
    methods: str | Sequence[str] | Mapping[str, Any] | None = None,
    backbones: str | Sequence[str] | None = None,
    space: str | Path | Mapping[str, Any] | None = None,
    hours: float | None = None,
    trials: int | None = None,
    operations: float | None = None,
    folds: int | None = None,
    refit: bool = False,
    out: str | Path | None = None,
    jobs: int | None = None,
    devices: str = "auto",
    launcher: str = "local",
    launcher_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Found:
    """Search for a method and settings that raise top-1 on ``val`` (mean average precision where an image may have
    several labels), beginning with the experiment ``base``.

    ``methods`` and ``backbones`` are as in a comparison, and ``space`` is a file or a mapping as
    :func:`mixskd.comparison.search.space.space_from` reads it. The search ends after ``hours`` of this call, at
    ``trials`` trials or ``operations`` training operations (FLOPs) in the folder, whichever comes first; after 20
    trials if none is given. With ``folds``, the last rung is repeated over the folds of a cross-validation.
    ``refit`` trains the winner on train and val together. ``jobs``, ``devices``, ``launcher`` and ``launcher_options``
    are those of a comparison. The same call continues a search that was stopped.
    Raises UserError for a mistake, before anything is trained.
    """
    needed("optuna", "tune")
    limits = limits_from(hours, trials, operations)
    check_launcher(launcher, jobs)
    folder = Path(out or f"runs/tune-{Path(base.data.source).stem or 'data'}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; give a folder")
    base, data = with_val(base, folds)
    if refit and "test" not in data.splits:
        raise UserError("--refit trains on val too, and the data have no test split to score it on; leave --refit out")
    given = read_yaml(Path(space)) if isinstance(space, str | Path) else space or {}
    kind = MULTILABEL if data.several else None
    usual = [name for name in USUAL if not data.several or method_class(name.partition("[")[0]).several_labels]
    whole, costs = space_from(base, given, methods, backbones, usual), Costs(data)
    check_methods(whole, costs)
    carrier = LAUNCHERS[launcher](folder, jobs, devices, launcher_options or {})
    display = TrialsDisplay(monitor_of(kind).title, quiet=not progress)
    try:
        rungs, speed = stored_rungs(folder, whole, costs, limits, folds, carrier, display)
        study = Study(folder, whole, base.run.seed, kind)
        search = Search(folder, study, costs, rungs, limits, folds, display, speed)
        try:
            carry_out_all([], carrier, display, search)
        finally:
            search.release()
            write_leaderboard(folder, study, rungs, importance=True)
        return conclude(search, carrier, "test" in data.splits, refit)
    finally:
        carrier.close()


def limits_from(hours: float | None, trials: int | None, operations: float | None) -> Limits:
    """The limits, with 20 trials if none is given. Raises UserError for one that is not above 0."""
    for name, value in {"hours": hours, "trials": trials, "operations": operations}.items():
        if value is not None and not value > 0:
            raise UserError(f"--{name} must be above 0, not {value}")
    return Limits(TRIALS if (hours, trials, operations) == (None, None, None) else trials, operations, hours)


def with_val(base: Experiment, folds: int | None) -> tuple[Experiment, DataBundle]:
    """``base`` with a ``val`` split, drawn from the training images if the data have none, and its data.

    Nothing is computed on ``test``. Raises UserError if the folds would replace a ``val`` of the data.
    """
    if folds is not None and folds < 2:
        raise UserError(f"--folds must be 2 or more, not {folds}")
    run = dataclasses.replace(base.run, score_test=False)
    own = load_data(dataclasses.replace(base.data, val_holdout=0.0, folds=None, fold=0), verify=False)
    if "val" in own.splits and folds is not None:
        raise UserError("--folds divides the training images, but the data have a val split; leave --folds out")
    changed: dict[str, Any] = {"folds": folds, "fold": 0}
    if "val" not in own.splits:
        changed["val_holdout"] = base.data.val_holdout or VAL_HOLDOUT
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, **changed), run=run, out="")
    return base, load_data(base.data, verify=False)


def check_methods(space: Space, costs: Costs) -> None:
    """Raises UserError for a method without its teacher or that refuses a backbone or the labels, and for an unknown
    policy.

    Counting the operations of an epoch builds each method on its backbone.
    """
    for arm in space.arms:
        taught_by = method_class(arm.settings["method.name"]).taught_by
        if taught_by is not None and not arm.settings.get("method.teacher"):
            raise UserError(f"{arm.label} learns from a trained {taught_by}; give it one: {arm.label}[teacher=FOLDER]")
        if costs.data.several:
            method_class(arm.settings["method.name"]).check_several(arm.label)
        for backbone in space.backbones:
            costs.epoch(space.experiment({**arm.settings, "backbone": backbone}))
    costs.epoch(space.base)
    for policy in space.settings["data.augment"].extremes if "data.augment" in space.settings else ():
        check_policy(str(policy), wanted=costs.data.preprocess)


def stored_rungs(
    folder: Path, space: Space, costs: Costs, limits: Limits, folds: int | None, launcher: Launcher,
    display: TrialsDisplay,
) -> tuple[Rungs, float | None]:  # fmt: skip
    """The rungs of the search in ``folder`` and the measured speed; a new search gets those that fit its limits.

    The last rung costs as much as the recipe's own run, or a fourth of the whole budget if that is less. Raises
    UserError if the folder holds another search.
    """
    path = folder / "search.yaml"
    values = {"base": {k: v for k, v in to_dict(space.base).items() if k != "out"}, "space": space.plain(),
              "folds": folds}  # fmt: skip
    described = yaml.safe_load(yaml.safe_dump(values, sort_keys=False))
    check_folder(folder)
    full = costs.whole(space.base)
    speed = None
    if not path.exists():
        if limits.hours is not None:
            speed = measured_speed(folder, space.base, costs, launcher, display)
            full = min(full, speed * limits.hours * 3600 * (launcher.slots or 1) / SHARE)
        if limits.operations is not None:
            full = min(full, limits.operations / SHARE)
    (folder / INSIDE).mkdir(parents=True, exist_ok=True)
    with locked(folder / INSIDE / "ask.lock"):
        if path.exists():
            stored = read_yaml(path)
            if different := [key for key in described if stored.get(key) != described[key]]:
                raise UserError(f"{path} is that of a search with another {different[0]}; choose another --out, or "
                                "give the same settings")  # fmt: skip
            return tuple(stored["rungs"]), stored.get("speed")
        rungs = rungs_for(full, space.base.run.epochs * full / costs.whole(space.base))
        write_text(path, yaml.safe_dump({**described, "rungs": list(rungs), "speed": speed}, sort_keys=False))
    epochs = costs.fitted(space.base, rungs[-1]).run.epochs
    if epochs < space.base.run.epochs:
        display.say(f"the budget does not pay for trials of {space.base.run.epochs} epochs of the recipe; "
                    f"the last rung has {epochs}")  # fmt: skip
    return rungs, speed


def check_folder(folder: Path) -> None:
    """Raises UserError if ``folder`` holds anything but a search."""
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "search.yaml" not in names and {name for name in names if not name.startswith(".")} - {"speed", "logs"}:
        raise UserError(f"--out {folder} holds files that belong to no search; choose an empty or a new folder")


def measured_speed(folder: Path, base: Experiment, costs: Costs, launcher: Launcher, display: TrialsDisplay) -> float:
    """Training operations (FLOPs) per second, measured by a run of one epoch. Raises UserError if it fails."""
    experiment = dataclasses.replace(costs.fitted(base, 0.0), out=str(folder / "speed"))
    run = Run(folder, "speed", "speed", experiment)
    if changed := run.other_settings():
        raise UserError(f"{folder} holds a search with other settings: {changed}; choose another --out")
    if reason := carry_out_all([run], launcher, display).get(run.name):
        raise UserError(f"the recipe itself cannot be trained: {reason}")
    return costs.whole(experiment) / max(float(read_result(run.files.path).summary["seconds"]), 1e-3)


def conclude(search: Search, launcher: Launcher, has_test: bool, refit: bool) -> Found:
    """Score the winner on ``test`` once, write best.yaml, and train on train and val if wanted."""
    folder, study = search.folder, search.study
    best = winner(study.trials)
    if best is None:
        return Found(
            folder, None, None, "no trial came to the last rung; the same command with a larger budget continues"
        )
    experiment = search.costs.fitted(study.space.experiment(best.user_attrs["settings"]), search.rungs[-1])
    path = write_best(folder, experiment)
    last = f"trial{best.number + 1:03d}-rung{len(search.rungs)}"
    runs = sorted(name for name in best.user_attrs["operations"] if name.startswith(last))
    if study.others_at_work():
        return Found(folder, path, folder / runs[0], "another process still works on this search; it will end it")
    with locked(folder / INSIDE / "end.lock"):
        tested = stored_tests(folder)
        if has_test and best.number not in tested:
            tested[best.number] = scores_on_test([folder / name for name in runs])
            write_text(tests_file(folder), yaml.safe_dump(tested))
        model = folder / runs[0]
        if refit:
            model = train_winner(folder, experiment, launcher, search.display).files.path
        write_leaderboard(folder, study, search.rungs, importance=True)
    return Found(folder, path, model, verdict(study.trials, best, tested.get(best.number), monitor_of(study.kind)))
