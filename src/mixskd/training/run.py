"""A run from its folder to its summary, in all the processes that ``torchrun`` started."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mixskd.config import Experiment, difference
from mixskd.config.build import read_experiment
from mixskd.data.splits_file import check_division, write_division
from mixskd.errors import UserError
from mixskd.runtime.distributed import World, join, may_restart, restarts
from mixskd.training.continuation import before_restart, continued, with_schedule
from mixskd.training.description import describe, time_line
from mixskd.training.factory import build_parts
from mixskd.training.fitting import fitting_batch
from mixskd.training.listeners import Listener, listeners_of
from mixskd.training.probe import probe_at_start
from mixskd.training.run_folder import RunFolder
from mixskd.training.run_lock import run_lock
from mixskd.training.trainer import Trainer


def train(
    experiment: Experiment,
    *,
    resume: bool = False,
    overwrite: bool = False,
    more_epochs: int = 0,
    listeners: Sequence[Listener] = (),
    remarks: Sequence[str] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run ``experiment`` and return its summary with ``out``, its folder.

    ``listeners`` are called in addition to those of the experiment. ``overwrite`` removes an earlier run from the
    folder; if ``torchrun`` may restart this run, it does so at once. ``more_epochs`` continue a finished run; so does
    ``resume`` with an experiment of more epochs (:func:`mixskd.training.continuation.continued`). ``remarks`` are lines
    for a person, shown with the description of the run. A ``dry_run`` does the same up to the first step but writes
    nothing and calls no listener; it returns ``out`` and, as ``plan``, lines that describe the run. A run that fails
    before its first checkpoint and before the end of its first epoch leaves nothing behind. Raises UserError for an
    experiment, data or a folder that cannot be used.
    """
    with join(experiment.run.device) as world, ExitStack() as stack:
        # The default folder has a number, which one process chooses for all.
        experiment = dataclasses.replace(experiment, out=world.same(experiment.out))
        folder = RunFolder(Path(experiment.out))
        restarted = restarts() > 0 and folder.config.exists()
        begun, resume = False, resume or more_epochs > 0

        def changes() -> list[str]:
            stored = read_experiment(folder.config)
            return difference(stored, before_restart(experiment, stored))

        def claim() -> bool:
            nonlocal experiment
            stack.enter_context(run_lock(folder.path))
            if resume and not restarted:  # a restarted one has its epochs in config.yaml
                experiment = continued(folder, experiment, more_epochs)
            resumed = folder.check(
                resume=resume or restarted,
                overwrite=overwrite and restarts() == 0,
                changes=changes,
            )
            if overwrite and may_restart() and not dry_run:  # a restart would otherwise resume the earlier run
                folder.remove_run()
            return resumed

        def begin() -> None:
            nonlocal begun
            folder.begin(experiment)  # the user's settings; a rate that the task computed from the batch is not stored
            begun = True
            write_splits()

        def go_on() -> None:
            if read_experiment(folder.config).run.epochs != experiment.run.epochs:
                folder.extend(experiment)
            write_splits()

        def write_splits() -> None:
            if trainer.parts.data.divided and not folder.division.exists():
                write_division(trainer.parts.data, folder.division)

        resumed = on_first_process(world, claim)
        if resumed:  # perhaps with more epochs
            schedule = world.same((experiment.run.epochs, experiment.optim.restarts))
            experiment = with_schedule(experiment, *schedule)
        if experiment.run.batch_size == "auto":
            size = read_experiment(folder.config).run.batch if resumed else fitting_batch(experiment, world)
            experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, batch_size=size))
            remarks = [*remarks, f"run.batch_size auto: {size} images an update fit the memory"]
        parts = build_parts(experiment, world, resumed=resumed)
        trainer = Trainer(parts, folder, [*listeners_of(experiment.run), *listeners], remarks)
        if resumed:
            trainer.restore()
            on_first_process(world, partial(check_division, trainer.parts.data, folder.division))
        else:
            probe_at_start(parts)
        try:
            if dry_run:
                summary = {"plan": rehearsed(trainer, remarks, resumed, overwrite)}
            else:
                on_first_process(world, go_on if resumed else begin)
                summary = trainer.run()
        except BaseException:
            if begun and not (trainer.position.rows or folder.checkpoint.exists()):
                folder.remove_run()
            raise
        trainer.step.close()
        return {"out": str(folder.path), **summary}


def rehearsed(trainer: Trainer, remarks: Sequence[str], resumed: bool, overwrite: bool) -> list[str]:
    """Do the first steps, which are not kept, and return lines that describe the run."""
    step, run = trainer.position.step, trainer.experiment.run
    seconds = trainer.rehearse()
    left = run.epochs * len(trainer.parts.loader) - step
    time = [] if seconds is None else [time_line(left, seconds)]
    notes = [f"note: {note}" for note in trainer.parts.notes]
    how = f"continues from step {step:,}" if resumed else "starts from the beginning"
    if overwrite and trainer.folder.config.exists():
        how += ", and the run that is there now is removed"
    return [*remarks, *describe(trainer.parts), *time, *notes, f"out: {trainer.folder.path}; the run {how}"]


def on_first_process(world: World, act: Callable[[], bool | None]) -> bool:
    """Call ``act`` on the first process, and return its result, or raise its UserError, on all of them."""
    result: bool | str = False
    if world.first:
        try:
            result = bool(act())
        except UserError as error:
            result = str(error)
    result = world.same(result)
    if isinstance(result, str):
        raise UserError(result)
    return result
