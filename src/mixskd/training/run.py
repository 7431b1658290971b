"""A run from its folder to its summary, in all the processes that ``torchrun`` started."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.data.splits_file import write_division
from mixskd.errors import UserError
from mixskd.runtime.distributed import World, join, may_restart, restarts
from mixskd.training.description import describe
from mixskd.training.factory import build_parts
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
    listeners: Sequence[Listener] = (),
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Run ``experiment``, in all processes that ``torchrun`` started, and return its summary; ``out`` is the folder.

    ``listeners`` are called in addition to those that ``run`` names. ``overwrite`` removes a run that is in the folder.
    ``remarks`` are shown to a person, with what the run is about to do. A run that fails before its first checkpoint,
    or before the end of its first epoch, leaves nothing behind. Raises UserError for anything in the experiment, its
    data or its folder that cannot work.
    """
    with made_ready(experiment, resume, overwrite, listeners, remarks) as (trainer, experiment, going_on):
        folder, world = trainer.folder, trainer.world

        begun = False

        def begin() -> None:
            nonlocal begun
            folder.begin(experiment)  # as it was asked for; the trainer's may have a rate that fits the batch
            begun = True
            if trainer.parts.data.divided:
                write_division(trainer.parts.data, folder.division)

        try:
            if not going_on:
                agreed(world, begin)
            return {"out": str(folder.path), **trainer.run()}
        except BaseException:
            if begun and not (trainer.position.rows or folder.checkpoint.exists()):
                folder.remove_run()
            raise


def rehearse(
    experiment: Experiment,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listeners: Sequence[Listener] = (),
    remarks: Sequence[str] = (),
) -> list[str]:
    """Do all that :func:`train` does up to and including its first step, and leave nothing behind.

    Returns lines for a person that say what the run would do. The ``listeners`` are not called, so no service gets a
    run. Raises UserError for whatever :func:`train` would refuse until then.
    """
    with made_ready(experiment, resume, overwrite, listeners, remarks, rehearsal=True) as (trainer, _, going_on):
        step = trainer.position.step
        trainer.rehearse()
        notes = [f"note: {note}" for note in trainer.parts.notes]
        how = f"continues from step {step:,}" if going_on else "starts from the beginning"
        if overwrite and trainer.folder.config.exists():
            how += ", and the run that is there now is removed"
        return [*remarks, *describe(trainer.parts), *notes, f"out: {trainer.folder.path}; the run {how}"]


@contextmanager
def made_ready(
    experiment: Experiment,
    resume: bool,
    overwrite: bool,
    listeners: Sequence[Listener],
    remarks: Sequence[str],
    *,
    rehearsal: bool = False,
) -> Iterator[tuple[Trainer, Experiment, bool]]:
    """The trainer of ``experiment``, at its first step or at its checkpoint; the experiment as all processes have it;
    and whether the run continues from a checkpoint.

    The folder is locked, and nothing in it is changed. There is one exception: if ``torchrun`` may restart this run,
    ``overwrite`` removes the earlier run at once, unless this is a ``rehearsal``. Raises UserError for anything that
    cannot work.
    """
    with join(experiment.run.device) as world, ExitStack() as stack:
        # the default folder is numbered, so one process chooses it
        experiment = dataclasses.replace(experiment, out=world.same(experiment.out))
        folder = RunFolder(Path(experiment.out))
        told = [*listeners_of(experiment.run), *listeners]
        again = resume or (restarts() > 0 and folder.config.exists())

        def claim() -> bool:
            stack.enter_context(run_lock(folder.path))
            going_on = folder.check(experiment, resume=again, overwrite=overwrite and restarts() == 0)
            if overwrite and may_restart() and not rehearsal:  # or a restart would go on with the run before
                folder.remove_run()
            return going_on

        going_on = agreed(world, claim)
        trainer = Trainer(build_parts(experiment, world, resumed=going_on), folder, told, remarks)
        if going_on:
            trainer.restore()
        else:
            probe_at_start(trainer.parts)
        yield trainer, experiment, going_on
        trainer.step.close()


def agreed(world: World, act: Callable[[], bool | None]) -> bool:
    """What ``act`` gives on the first process, or its UserError, on all of them."""
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
