"""Optuna's study in the folder of a search; locks let several processes work on it, each on its own trials."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixskd.comparison.search.rungs import FACTOR
from mixskd.comparison.search.space import Choice, Space
from mixskd.config.task_kinds import Kind
from mixskd.runtime.files import locked

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STARTUP = 8  # trials that are drawn at random before the sampler models the scores
INSIDE = ".search"  # the folder of the journal and the locks


class FileLock:
    """The lock of Optuna's journal by ``flock``, which ends with its process, however that ends."""

    def __init__(self, path: Path) -> None:
        self.path, self.descriptor = path, -1

    def acquire(self) -> bool:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self.descriptor)


class Claim:
    """A trial that this process alone works on until it is released. It is read from and written to the journal."""

    def __init__(self, trial: Any, lock: ExitStack) -> None:
        self.trial, self.lock = trial, lock

    @property
    def number(self) -> int:
        return int(self.trial.number)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings by dotted name."""
        return dict(self.trial.user_attrs["settings"])

    @property
    def rung(self) -> int:
        """The rung that it works on: that after the ones it was promoted from."""
        return int(self.trial.user_attrs.get("rung", 0))

    @property
    def scores(self) -> list[float]:
        """The score of each rung that has one, in per cent, in order."""
        reports = self.trial.study.get_trials(deepcopy=False)[self.number].intermediate_values
        return [reports[resource] for resource in sorted(reports)]

    def note(self, name: str, value: Any) -> None:
        """Store a plain ``value`` with the trial."""
        self.trial.set_user_attr(name, value)

    def add(self, name: str, key: str, value: Any) -> None:
        """Store ``value`` under ``key`` of the mapping ``name`` of the trial."""
        self.note(name, {**self.trial.user_attrs.get(name, {}), key: value})

    def weak(self) -> bool:
        """Whether successive halving ends the trial at its last score."""
        return bool(self.trial.should_prune())

    def release(self) -> None:
        self.lock.close()


class Study:
    """The trials of the search in ``folder``, with the sampler and the successive halving of Optuna; ``kind`` is that
    of their task.
    """

    def __init__(self, folder: Path, space: Space, seed: int, kind: Kind | None = None) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.inside, self.space, self.seed, self.kind = optuna, folder / INSIDE, space, seed, kind
        self.inside.mkdir(parents=True, exist_ok=True)
        journal = self.inside / "journal.log"
        backend = JournalFileBackend(str(journal), lock_obj=FileLock(self.inside / "journal.lock"))  # type: ignore[arg-type]
        with locked(self.inside / "ask.lock"):
            self.study = optuna.create_study(
                storage=JournalStorage(backend), study_name="search", direction="maximize", load_if_exists=True,
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR),
            )  # fmt: skip

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials whose settings are known, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "settings" in trial.user_attrs]

    def claim(self, taken: set[int], may_begin: Callable[[int], bool]) -> Claim | None:
        """A trial that another process has left, or a new one; None if there is none to be had.

        Those in ``taken`` are left out. ``may_begin`` says whether a further trial may begin after so many.
        """
        state = self.optuna.trial.TrialState
        with locked(self.inside / "ask.lock"):
            trials = self.study.get_trials(deepcopy=False)
            for left in trials:
                if left.state == state.RUNNING and left.number not in taken and (lock := self._lock(left.number)):
                    self._seed(left.number)
                    return self._drawn(self.optuna.trial.Trial(self.study, left._trial_id), lock)
            begun = [trial for trial in trials if trial.state != state.WAITING]
            if not may_begin(len(begun)):
                return None
            if not trials:
                self.study.enqueue_trial(self.space.base_parameters())
            self._seed(len(begun))
            trial = self.study.ask()
            lock = self._lock(trial.number)
            assert lock is not None  # nobody else asks meanwhile
            return self._drawn(trial, lock)

    def _seed(self, number: int) -> None:
        """Prepare the sampler for a trial; with one seed for all, several processes would propose the same."""
        seed = self.seed * 1_000_003 + number
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=STARTUP)

    def _lock(self, number: int) -> ExitStack | None:
        stack = ExitStack()
        if stack.enter_context(locked(self.inside / f"trial{number + 1:03d}.lock", wait=False)):
            return stack
        stack.close()
        return None

    def _drawn(self, trial: Any, lock: ExitStack) -> Claim:
        if "settings" not in trial.user_attrs:
            settings = self._base(trial) if trial.number == 0 else self.space.draw(trial)
            trial.set_user_attr("settings", settings)
        return Claim(trial, lock)

    def _base(self, trial: Any) -> dict[str, Any]:
        """The settings of trial 1: none; Optuna learns those of its parameters that the space holds."""
        parts: dict[str, Any] = {
            "method": Choice(tuple(arm.label for arm in self.space.arms)), "backbone": Choice(self.space.backbones),
            **self.space.settings,
        }  # fmt: skip
        for name in self.space.base_parameters():
            parts[name].draw(trial, name)
        return {"backbone": self.space.base.backbone}

    def end(self, claim: Claim, score: float | None) -> None:
        """End the trial of ``claim`` with its score on the last rung, or pruned if it has none."""
        state = self.optuna.trial.TrialState
        self.study.tell(claim.trial, score, state=state.PRUNED if score is None else state.COMPLETE)
        claim.release()

    def others_at_work(self) -> bool:
        """Whether another process works on a trial."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == self.optuna.trial.TrialState.RUNNING:
                if (lock := self._lock(trial.number)) is None:
                    return True
                lock.close()
        return False

    def importance(self) -> Mapping[str, float]:
        """The share of each parameter in the differences of the first rung's scores, largest first; empty if unknown.

        All trials have a score there, and only the strong ones have one of the last rung.
        """
        done = [trial for trial in self.trials if trial.intermediate_values and trial.params]
        if len(done) < STARTUP:
            return {}
        known = self.optuna.create_study(direction="maximize")
        for trial in done:
            first = trial.intermediate_values[min(trial.intermediate_values)]
            known.add_trial(
                self.optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=first)
            )
        try:
            return dict(self.optuna.importance.get_param_importances(known))
        except (RuntimeError, ValueError):  # scores without a difference
            return {}
