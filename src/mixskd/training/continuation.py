"""More epochs for a finished run: its schedule starts again, and ``optim.restarts`` says after which epoch."""

import dataclasses

from mixskd.artifacts.stored_files import read_summary
from mixskd.config import Experiment
from mixskd.config.build import read_experiment
from mixskd.errors import UserError
from mixskd.training.run_folder import RunFolder


def continued(folder: RunFolder, experiment: Experiment, more: int = 0) -> Experiment:
    """``experiment`` with ``more`` epochs after those of the finished run in ``folder``, where the schedule restarts.

    Without ``more`` they are those that ``experiment`` has beyond that run; it is returned as it is if there are none.
    Raises UserError for ``more`` epochs of a run that is not finished.
    """
    finished = folder.config.is_file() and folder.summary.is_file()
    if more and not finished:
        raise UserError(f"there is no finished run in {folder.path}, which --more-epochs could continue; "
                        "--resume continues one that was stopped")  # fmt: skip
    if not finished:
        return experiment
    before = read_experiment(folder.config)
    if not more and experiment.run.epochs <= before.run.epochs:
        return experiment
    done = int(read_summary(folder.summary, classifier=False).get("epochs", before.run.epochs))
    return with_schedule(experiment, done + more if more else experiment.run.epochs, (*before.optim.restarts, done))


def before_restart(experiment: Experiment, earlier: Experiment) -> Experiment:
    """``experiment`` with the epochs of ``earlier``, if it is a continuation of that; else as it is."""
    *restarts, _ = experiment.optim.restarts or (0,)
    if not experiment.optim.restarts or tuple(restarts) != earlier.optim.restarts:
        return experiment
    return with_schedule(experiment, earlier.run.epochs, earlier.optim.restarts)


def with_schedule(experiment: Experiment, epochs: int, restarts: tuple[int, ...]) -> Experiment:
    """``experiment`` with these epochs, and the schedule anew after each of ``restarts``."""
    return dataclasses.replace(
        experiment,
        run=dataclasses.replace(experiment.run, epochs=epochs),
        optim=dataclasses.replace(experiment.optim, restarts=restarts),
    )
