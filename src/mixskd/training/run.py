"""A run from its folder to its summary, in all the processes that ``torchrun`` started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.data.division import write_division
from mixskd.distributed import World, join, restarts
from mixskd.errors import UserError
from mixskd.experiment import build_parts
from mixskd.training.listeners import Listener, listeners_of
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

    ``listeners`` are told of it beside those that ``run`` names. ``overwrite`` removes a run that is in the folder.
    ``remarks`` are shown to a person with what the run is about to do.
    Raises UserError for anything in the experiment, its data or its folder that cannot work.
    """
    with join(experiment.run.device) as world, ExitStack() as stack:
        experiment = world.same(experiment)  # the default folder is numbered, so one process chooses it
        folder = RunFolder(Path(experiment.out))
        told = [*listeners_of(experiment.run), *listeners]
        again = resume or (restarts() > 0 and folder.config.exists())

        def claim() -> bool:
            stack.enter_context(run_lock(folder.path))
            return folder.claim(experiment, resume=again, overwrite=overwrite and restarts() == 0)

        going_on = agreed(world, claim)
        try:
            parts = build_parts(experiment, world, resumed=going_on)
            trainer = Trainer(parts, folder, told, remarks)
            if going_on:
                trainer.restore()
            elif world.first and parts.data.divided:
                write_division(parts.data, folder.division)
        except BaseException:
            if not going_on and world.first:  # leave nothing behind of a run that never began
                folder.config.unlink(missing_ok=True)
                folder.division.unlink(missing_ok=True)
            raise
        return {"out": str(folder.path), **trainer.run()}


def agreed(world: World, act: Callable[[], bool]) -> bool:
    """What ``act`` gives on the first process, or its UserError, on all of them."""
    result: bool | str = False
    if world.first:
        try:
            result = act()
        except UserError as error:
            result = str(error)
    result = world.same(result)
    if isinstance(result, str):
        raise UserError(result)
    return result
