"""The runs of a grid: the experiment of each, and the runs that must be finished before it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mixskd.benchmarking.cost import images_forwarded
from mixskd.comparison.costs import CostsByData, equalised
from mixskd.comparison.grid import Arm, Grid
from mixskd.comparison.transfer_runs import SCRATCH, Transfer, label_of
from mixskd.config import Experiment, difference, merge, to_dict
from mixskd.config.build import build_experiment, read_experiment
from mixskd.config.task_kinds import kind_of
from mixskd.data.policies import check_policy
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError
from mixskd.evaluation.runner import check_images
from mixskd.methods import method_class
from mixskd.runtime.files import slug
from mixskd.training.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """One run of the grid in ``folder / name``; ``after`` names the runs whose weights it needs."""

    folder: Path
    name: str
    label: str
    experiment: Experiment
    after: tuple[str, ...] = ()

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder / self.name)

    @property
    def finished(self) -> bool:
        return self.files.summary.exists()

    @property
    def state(self) -> str:
        """``finished``, ``to resume`` or ``to run``."""
        return "finished" if self.finished else "to resume" if self.files.checkpoint.exists() else "to run"

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    def other_settings(self) -> str:
        """Differences from the settings of the run in this folder, in words; empty if it is the same, or no run."""
        config = self.files.config
        if not config.exists():
            return ""
        return "; ".join(difference(read_experiment(config), self.experiment))


def plan(grid: Grid, folder: Path) -> list[Run]:
    """The runs of ``grid`` in ``folder``, each after those it needs; all arms of a seed before the next seed.

    A detector or a segmentation network comes after the backbones of its seed.

    Raises UserError for an unknown name or setting, for a policy or a suite that cannot take the images, and if the
    folder holds a run with other settings.
    """
    runs: dict[str, Run] = {}
    forwarded: dict[str, int] = {}
    costs = CostsByData()
    for seed in grid.seeds:
        for backbone in grid.backbones:
            for augment, fold in product(grid.augments, range(grid.folds or 1)):
                own = {"backbone": backbone, "data.augment": augment, "data.fold": fold, "run.seed": seed}
                experiments = {arm.label: _experiment(grid, arm, own, forwarded) for arm in grid.arms}
                if grid.equal_updates is not None:
                    experiments = equalised(experiments, grid.equal_updates, lambda e: costs(e).updates(e))
                if grid.equal_cost is not None:
                    experiments = equalised(experiments, grid.equal_cost, lambda e: costs(e).epoch(e))
                # Teachers first: an arm with the experiment of a teacher serves as that teacher.
                for label, experiment in sorted(experiments.items(), key=lambda item: _taught_by(item[1]) is not None):
                    _add(runs, folder, label, experiment)
                if grid.transfer is not None:
                    for label, experiment in experiments.items():
                        _carry_on(runs, folder, grid.transfer, label, experiment)
            if grid.transfer is not None and grid.transfer.scratch:
                for one in grid.transfer.seeds or (seed,):
                    _add_transfer(runs, folder, SCRATCH, grid.transfer.experiment(backbone, one, None))
    for run in runs.values():
        if kind_of(run.experiment.method.name) is None:
            data = run.experiment.data
            images = Preprocess(1, (0.0,) * data.channels, (1.0,) * data.channels, range=data.range)
            check_policy(data.augment, data.color_jitter, wanted=images)
            check_images(grid.suites, {run.name: images})
        if changed := run.other_settings():
            raise UserError(f"{run.files.path} holds a run of another configuration: {changed}; "
                            "choose another --out, or give the same settings")  # fmt: skip
    return list(runs.values())


def _experiment(grid: Grid, arm: Arm, own: dict[str, Any], forwarded: dict[str, int]) -> Experiment:
    """The experiment of ``arm`` with the settings ``own`` of its place in the grid.

    ``forwarded`` caches the images that an arm forwards per original, by label; they are the same for all backbones.
    """
    folds = {} if grid.folds is None else {"data.folds": grid.folds}
    experiment = build_experiment(merge(grid.settings, {**folds, **own, **arm.settings, "out": ""}))
    if grid.images_per_update is not None and "run.batch_size" not in arm.settings:
        if arm.label not in forwarded:  # seconds for some networks
            forwarded[arm.label] = images_forwarded(experiment)
        batch = max(1, grid.images_per_update // forwarded[arm.label])
        experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, batch_size=batch))
    return experiment


def _add(runs: dict[str, Run], folder: Path, label: str, experiment: Experiment) -> str:
    """Add the run, after that of its teacher if its method needs one; returns its name."""
    name = run_name(label, experiment)
    method = experiment.method
    after: tuple[str, ...] = ()
    taught_by = _taught_by(experiment)
    if taught_by is not None:
        teacher = build_experiment(merge(to_dict(experiment), {"method": {"name": taught_by}}))
        teacher_name = next((n for n, run in runs.items() if not difference(run.experiment, teacher)), None)
        if teacher_name is None:
            free = run_name(taught_by, teacher) not in runs
            teacher_name = _add(runs, folder, taught_by if free else f"{taught_by}_for_{label}", teacher)
        options = {**method.options, "teacher": str(folder / teacher_name)}
        experiment = dataclasses.replace(experiment, method=dataclasses.replace(method, options=options))
        after = (teacher_name,)
    known = runs.get(name)
    if known is not None and difference(known.experiment, experiment):
        raise UserError(f"two runs of the grid would have the same folder {name}; give their methods other labels")
    placed = dataclasses.replace(experiment, out=str(folder / name))
    runs.setdefault(name, Run(folder, name, label, placed, after))
    return name


def _carry_on(runs: dict[str, Run], folder: Path, transfer: Transfer, label: str, trained: Experiment) -> None:
    """Add the runs that start from the backbone of the run of ``trained``."""
    if trained.data.channels != 3:
        raise UserError(f"detectors and segmentation networks take RGB, but data.channels is {trained.data.channels}; "
                        "leave the transfer out")  # fmt: skip
    name, augment = run_name(label, trained), trained.data.augment
    origin = label if augment == "none" else f"{label}-{augment}"
    for seed in transfer.seeds or (trained.run.seed,):
        experiment = transfer.experiment(trained.backbone, seed, str(folder / name))
        _add_transfer(runs, folder, origin, experiment, trained.run.seed if transfer.seeds else None, (name,))


def _add_transfer(
    runs: dict[str, Run], folder: Path, origin: str, experiment: Experiment, of_seed: int | None = None,
    after: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Add one transfer run; ``of_seed`` is the seed of its backbone where the two differ."""
    label = label_of(origin, experiment)
    name = run_name(label, experiment, of_seed)
    if name not in runs:
        placed = dataclasses.replace(experiment, out=str(folder / name))
        runs[name] = Run(folder, name, label, placed, after)


def _taught_by(experiment: Experiment) -> str | None:
    """The method of the teacher that must be trained for this experiment, or None."""
    taught_by = method_class(experiment.method.name).taught_by
    return taught_by if taught_by is not None and not experiment.method.options["teacher"] else None


def run_name(label: str, experiment: Experiment, of_seed: int | None = None) -> str:
    """``LABEL-BACKBONE[-AUGMENT][-fromM][-foldK]-seedN``, which every file system accepts; M is ``of_seed``."""
    data = experiment.data
    parts = (
        label,
        experiment.backbone,
        data.augment if data.augment != "none" else "",
        "" if of_seed is None else f"from{of_seed}",
        "" if data.folds is None else f"fold{data.fold}",
        f"seed{experiment.run.seed}",
    )
    name = "-".join(slug(part) for part in parts if part)
    if len(name.encode()) > 200:  # the limit is 255, and the files beside it have longer names
        raise UserError(f"{label[:40]!r}... is too long for a folder's name; give it a label: LABEL={label[:40]}...")
    return name


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """The runs that are not finished, in order."""
    return [run for run in runs if not run.finished]
