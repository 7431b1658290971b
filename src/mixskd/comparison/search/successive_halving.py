"""The successive halving of a search: which run comes next, and when a trial is promoted, pruned or complete."""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from mixskd.artifacts.results import read_result
from mixskd.comparison.costs import Costs
from mixskd.comparison.plan import Run
from mixskd.comparison.search.display import TrialsDisplay
from mixskd.comparison.search.leaderboard import write_leaderboard
from mixskd.comparison.search.rungs import FACTOR, Rungs
from mixskd.comparison.search.study import Claim, Study
from mixskd.config import Experiment
from mixskd.config.task_kinds import monitor_of
from mixskd.errors import UserError


@dataclass(frozen=True)
class Limits:
    """When a search ends: what is given first.

    Args:
        trials: trials in the folder, those of earlier calls included.
        operations: training operations (FLOPs) of all runs in the folder, those of earlier calls included.
        hours: of this call.
    """

    trials: int | None = None
    operations: float | None = None
    hours: float | None = None


@dataclass
class Held:
    """A trial of this process with the runs of its rung: those to begin, and those under way."""

    claim: Claim
    waiting: list[Run] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    scores: dict[str, float] = field(default_factory=dict)


class Search:
    """Supplies the scheduler with runs; ``speed`` is FLOPs per second of a run, needed for a limit of hours."""

    def __init__(
        self, folder: Path, study: Study, costs: Costs, rungs: Rungs, limits: Limits, folds: int | None,
        display: TrialsDisplay, speed: float | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.study, self.costs, self.rungs = folder, study, costs, rungs
        self.last = len(rungs) - 1
        self.limits, self.folds, self.display, self.speed = limits, folds, display, speed
        self.deadline = None if limits.hours is None else time.monotonic() + 3600 * limits.hours
        self.held: dict[int, Held] = {}
        self.parked: set[int] = set()  # the budget does not pay for their next rung
        self.again: set[str] = set()  # runs that were killed once

    def next(self) -> Run | None:
        """The next run: of a trial that this process has, that another one has left, or that is new."""
        while True:
            for held in list(self.held.values()):
                if run := self._begin(held):
                    return run
            claim = self.study.claim({*self.held, *self.parked}, self._may_begin)
            if claim is None:
                return None
            self.held[claim.number] = held = Held(claim)
            if len(scores := claim.scores) > claim.rung:  # its process was killed between a score and its consequence
                self._decide(held, scores[-1])
            else:
                self._plan(held)

    def _begin(self, held: Held) -> Run | None:
        if not held.waiting:
            return None
        run = held.waiting[0]
        operations = self.costs.whole(run.experiment)
        known = run.name in held.claim.trial.user_attrs.get("operations", {})
        if held.claim.number and not self._affordable(0 if known else operations, operations):
            if not held.running:
                del self.held[held.claim.number]
                self.parked.add(held.claim.number)
                held.claim.release()
            return None
        held.waiting.pop(0)
        held.running.add(run.name)
        held.claim.add("operations", run.name, operations)
        return run

    def _plan(self, held: Held) -> None:
        """Line up the runs of the trial's rung; those that have ended in an earlier process are counted at once."""
        claim, last = held.claim, held.claim.rung == self.last
        experiment = self.study.space.experiment(claim.settings)
        experiment = self.costs.fitted(experiment, self.rungs[claim.rung])
        folds = range(self.folds or 1) if last else range(1)
        runs = [self._run(claim, experiment, fold if last and self.folds else None) for fold in folds]
        held.waiting = [run for run in runs if not run.finished]
        held.scores = {run.name: self._score(run) for run in runs if run.finished}
        if not held.waiting:
            self._close_rung(held)

    def _run(self, claim: Claim, experiment: Experiment, fold: int | None) -> Run:
        name = f"trial{claim.number + 1:03d}-rung{claim.rung + 1}" + ("" if fold is None else f"-fold{fold}")
        data = dataclasses.replace(experiment.data, fold=fold or 0)
        placed = dataclasses.replace(experiment, data=data, out=str(self.folder / name))
        return Run(self.folder, name, f"trial {claim.number + 1}", placed)

    def ended(self, run: Run, failure: str | None) -> None:
        """Count the score of ``run``; once the rung is complete, promote the trial or end it."""
        held = next(held for held in self.held.values() if run.name in held.running)
        held.running.discard(run.name)
        if failure is not None and failure.startswith("killed by") and run.name not in self.again:
            self.again.add(run.name)  # it continues from its checkpoint
            held.waiting.insert(0, run)
            return
        if failure is not None:
            held.claim.note("failure", failure)
            held.waiting.clear()
        else:
            held.scores[run.name] = self._score(run)
            held.claim.add("seconds", run.name, float(read_result(run.files.path).summary["seconds"]))
        if held.running or held.waiting:
            return
        if "failure" in held.claim.trial.user_attrs:
            self._end(held, None)
        else:
            self._close_rung(held)

    def _close_rung(self, held: Held) -> None:
        score = fmean(held.scores.values())
        held.claim.note("scores", {**held.claim.trial.user_attrs.get("scores", {}), **held.scores})
        if len(held.claim.scores) == held.claim.rung:
            held.claim.trial.report(score, FACTOR**held.claim.rung)
        self._decide(held, score)

    def _decide(self, held: Held, score: float) -> None:
        claim = held.claim
        weak = claim.weak()  # also of the first trial, with which the others compete
        if claim.rung == self.last:
            self._end(held, score)
        elif weak and claim.number:
            self._end(held, None)
        else:
            claim.note("rung", claim.rung + 1)
            self._plan(held)

    def _end(self, held: Held, score: float | None) -> None:
        del self.held[held.claim.number]
        self.study.end(held.claim, score)
        self._show(held.claim.number)
        write_leaderboard(self.folder, self.study, self.rungs)

    def _score(self, run: Run) -> float:
        """The score on ``val`` that ranks, in per cent. Raises UserError if the folder holds another run."""
        if changed := run.other_settings():
            raise UserError(f"{run.files.path} holds a run of another configuration: {changed}; choose another --out")
        result = read_result(run.files.path)
        return float(result.summary["scores"]["val"][monitor_of(result.kind).name])

    @property
    def spent(self) -> float:
        """The training operations (FLOPs) of all runs that were begun, by any process."""
        return sum(sum(trial.user_attrs.get("operations", {}).values()) for trial in self.study.trials)

    def _show(self, number: int) -> None:
        limit = self.limits.operations
        used = None if limit is None else self.spent / limit
        self.display.trial(self.study.trials, number, self.last, self.seconds_left(), used)

    def seconds_left(self) -> float | None:
        """Seconds until the limit of hours; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _may_begin(self, begun: int) -> bool:
        if begun == 0:
            return True
        if self.parked:  # what the budget does not pay for a strong trial, it does not pay for a further one
            return False
        first = self.rungs[0]
        return (self.limits.trials is None or begun < self.limits.trials) and self._affordable(first, first)

    def _affordable(self, further: float, operations: float) -> bool:
        """Whether ``further`` operations are within the limit, and a run of ``operations`` ends in time."""
        if self.limits.operations is not None and self.spent + further > self.limits.operations * (1 + 1e-9):
            return False
        left = self.seconds_left()
        return left is None or operations <= left * self._speed()

    def _speed(self) -> float:
        measured = [
            trial.user_attrs["operations"][name] / max(seconds, 1e-3)
            for trial in self.study.trials
            for name, seconds in trial.user_attrs.get("seconds", {}).items()
        ]
        return median(measured) if measured else self.speed or float("inf")

    def release(self) -> None:
        """Leave the trials that have not ended to the next call."""
        for held in self.held.values():
            held.claim.release()
