"""The training loop: it feeds the step, scores epochs and writes checkpoints. It depends on no method."""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from mixskd.config import difference, to_dict
from mixskd.config.build import build_experiment
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.data.splits_file import division_digest
from mixskd.errors import UserError
from mixskd.errors.terminal import warn
from mixskd.errors.text import counted
from mixskd.runtime.precision import autocast
from mixskd.tasks.scoring import metric_values, score, score_heads
from mixskd.training.checkpoint import check_fits, check_optimizer, check_position, drop_previous, load_newest
from mixskd.training.checkpoint_writer import CheckpointWriter
from mixskd.training.continuation import before_restart
from mixskd.training.description import describe
from mixskd.training.interrupt import Interrupt
from mixskd.training.listeners import Listener, RunInfo, StepInfo
from mixskd.training.measured_precision import to_store, with_stored_precision
from mixskd.training.parts import Parts
from mixskd.training.position import Position
from mixskd.training.probe import below_probe
from mixskd.training.run_folder import RunFolder
from mixskd.training.schedule import learning_rate, progress
from mixskd.training.selection import Selection
from mixskd.training.summary import summarise
from mixskd.training.tally import Tally

STOPPING = "stopping after this step, with a checkpoint; a second time stops at once, without one"
REHEARSED, LONGEST = 4, 3.0  # steps of a rehearsal that are timed, and the seconds after which no other begins


class Trainer:
    """Runs ``parts``, writes the files of the run to ``folder``, and calls the ``listeners``."""

    def __init__(
        self, parts: Parts, folder: RunFolder, listeners: Sequence[Listener] = (), remarks: Sequence[str] = ()
    ) -> None:
        self.parts, self.folder, self.remarks = parts, folder, remarks
        self.experiment, self.world, self.step = parts.experiment, parts.world, parts.step
        self.listeners = listeners if self.world.first else ()
        since = max(self.experiment.optim.restarts, default=0)
        self.selection = Selection(self.experiment.run, parts.data, parts.task.monitor, since)
        self.position = Position()
        self.tally = Tally()
        self.splits_digest = division_digest(parts.data)  # once, since it reads the name of every image
        # On a CPU the threads of the training would wait for the processor that writes.
        self.writer = CheckpointWriter(folder.checkpoint, beside=parts.device.type == "cuda")
        self.started = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """Train from the present position to the end. The first process returns the summary, others an empty dict."""
        run, length = self.experiment.run, len(self.parts.loader)
        try:
            for listener in self.listeners:
                listener.start(self._info())
            with Interrupt(self.world, run.log_every, STOPPING) as interrupt:
                for epoch in range(len(self.position.rows), run.epochs):
                    if self.selection.exhausted(self.position.rows):
                        break
                    first = self.position.step - epoch * length
                    for batch in self.parts.loader.epoch(epoch, first):
                        self.update(batch, epoch)
                        if self.position.step % run.log_every == 0:
                            self.check_finite()
                        stop = interrupt.signal()
                        if stop or self.due():
                            with interrupt.held():
                                self.save()
                                if stop:
                                    self.writer.wait()
                        if stop:
                            interrupt.leave(stop, self.folder.path)
                    self.close_epoch(epoch)
                    ended = epoch + 1 == run.epochs or self.selection.exhausted(self.position.rows)
                    if ended or (epoch + 1) % run.checkpoint_every_epochs == 0:
                        with interrupt.held():
                            self.save()
            summary = self.finish()
            for listener in self.listeners:
                listener.end(summary)
            return summary
        finally:
            self.writer.close()
            for listener in self.listeners:
                listener.close()

    def rehearse(self) -> float | None:
        """Take the next few steps, if any are left, without listeners. The trainer cannot be used afterwards.

        Returns the seconds of one step, after the first, which prepares the others; None if there is one at most.
        Raises UserError if a step does, and for a loss that is not finite.
        """
        if self.selection.exhausted(self.position.rows):
            return None
        begun, length, ends = len(self.position.rows), len(self.parts.loader), list[float]()
        firsts = {begun: self.position.step - begun * length}
        epochs = range(begun, self.experiment.run.epochs)
        steps = ((batch, epoch) for epoch in epochs for batch in self.parts.loader.epoch(epoch, firsts.get(epoch, 0)))
        self.listeners = ()
        for batch, epoch in islice(steps, 1 + REHEARSED):
            self.update(batch, epoch)
            self.check_finite()
            ends.append(time.perf_counter())
            if len(ends) > 1 and ends[-1] - ends[0] > LONGEST:
                break
        return (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else None

    def _info(self) -> RunInfo:
        return RunInfo(
            self.experiment, self.folder.path, len(self.parts.loader), self.position.step, tuple(self.position.rows),
            self.selection.monitor, (*self.remarks, *describe(self.parts), *self.resumed), tuple(self.parts.notes),
            self.parts.examples,
        )  # fmt: skip

    @property
    def resumed(self) -> list[str]:
        """A line that says where a resumed run goes on; none for a new one."""
        step, epochs, done = self.position.step, self.experiment.run.epochs, len(self.position.rows)
        whole = epochs * len(self.parts.loader)
        where = f"after step {step:,} of {whole:,}, in epoch {done + 1} of {epochs}"
        return [f"resumed {where}, from {self.folder.checkpoint.name}"] if 0 < step < whole else []

    @property
    def learning_rate(self) -> float:
        epochs = self.experiment.run.epochs
        return learning_rate(self.experiment.optim, self.position.step, len(self.parts.loader), epochs)

    def update(self, batch: Batch | DeferredBatch, epoch: int) -> None:
        """Take one step and add its terms to those of the epoch."""
        step, run = self.position.step, self.experiment.run
        seed = step_seed(run.seed, step, self.world.rank)
        terms = self.step(batch, self.learning_rate, seed, progress=progress(self.experiment.optim, epoch, run.epochs))
        self.tally.add(terms, step)
        self.position.step += 1
        self.position.images += run.batch
        if self.listeners:
            count = self.position.step - epoch * len(self.parts.loader)
            info = StepInfo(
                self.position.step, epoch, self.position.images, self.learning_rate, lambda: self.tally.sums, count
            )  # fmt: skip
            for listener in self.listeners:
                listener.step(info)

    def due(self) -> bool:
        every = self.experiment.run.checkpoint_every_steps
        return every > 0 and self.position.step % every == 0

    def close_epoch(self, epoch: int) -> None:
        """Add the row of the epoch, with scores if they are due, and reset the sums."""
        self.check_finite()
        self.step.method.end_epoch()
        steps = len(self.parts.loader)
        row: dict[str, float] = {"epoch": epoch + 1, "step": self.position.step}
        row["lr"] = learning_rate(self.experiment.optim, self.position.step - 1, steps, self.experiment.run.epochs)
        sums = self.world.gather(dict(self.tally.sums))
        row |= {f"train_{name}": sum(part[name] for part in sums) / steps / self.world.size for name in sums[0]}
        row |= self.evaluate(epoch)
        self.position.rows.append(row)
        self.selection.consider(row, self.parts.deployed)
        self.tally = Tally()
        for listener in self.listeners:
            listener.epoch(row)

    def evaluate(self, epoch: int) -> dict[str, float]:
        """The scores after ``epoch`` on ``val``, or on ``test`` if there is no ``val``; empty if they are not due.

        They are computed in the arithmetic of the steps, which is faster than that of the scores in the summary.
        """
        run, split = self.experiment.run, self.parts.data.scored
        if (epoch + 1) % run.evaluate_every and epoch + 1 < run.epochs:
            return {}
        row = {f"{split}_{name}": value for name, value in self.score(split, self.arithmetic).items()}
        if run.all_heads:
            self.world.share(self.step.method.buffers())
            row |= score_heads(
                self.step.method, self.parts.score_loaders[split], self.parts.device, split=split, world=self.world,
                arithmetic=self.arithmetic,
            )  # fmt: skip
        return row

    @property
    def arithmetic(self) -> AbstractContextManager[Any] | None:
        """That of the steps: their precision, and on a GPU TF32 as they use it. None for fp32 without TF32."""
        precision, device = self.step.engine.precision, self.parts.device
        return None if precision == "fp32" and device.type == "cpu" else autocast(device, precision)

    def score(self, split: str, arithmetic: AbstractContextManager[Any] | None = None) -> dict[str, float]:
        """The scores of the present deployed model on ``split``, in ``arithmetic``: fp32 without TF32 if None."""
        self.world.share(self.parts.deployed.buffers())
        loader = self.parts.score_loaders[split]
        return score(self.parts.deployed, loader, self.parts.task, self.parts.device, arithmetic)

    def check_finite(self) -> None:
        """Raises UserError if a term was NaN or infinite, with its step and the last good checkpoint."""
        steps = {name: self.world.highest(step) for name, step in self.tally.first_bad.items()}
        bad = {name: step for name, step in steps.items() if step >= 0}
        if bad:
            self.writer.wait()
            name = min((n for n in bad if n != "loss"), key=lambda n: bad[n], default="loss")
            checkpoint = self.folder.checkpoint
            kept = (
                f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
            )
            raise UserError(
                f"the loss term {name!r} became NaN or infinite at step {bad[name] + 1}; {kept}; start again with "
                "--overwrite and a smaller --optim.lr, --optim.clip-norm 5 or --run.precision fp32"
            )

    def save(self) -> None:
        """Write checkpoint.pt, on a GPU while the training goes on, unless the run has diverged."""
        self.check_finite()
        sums = self.world.gather(dict(self.tally.sums))
        if not self.world.first:
            return
        now = time.perf_counter()
        self.position.seconds += now - self.started
        self.started = now
        state = {
            "experiment": to_dict(self.experiment),
            "data": self.parts.data.fingerprint,
            "splits_digest": self.splits_digest,
            "arithmetic": to_store(self.step.engine),
            **self.writer.held(self.step.state_dict()),
            "best": self.selection.state,
            "probe": self.parts.probe,
            "position": dataclasses.asdict(self.position),
            "sums": sums,
        }
        self.writer.write(state)

    def restore(self) -> None:
        """Continue from checkpoint.pt, or from the checkpoint before it if that is damaged.

        All of it is checked before any of it is used. Raises UserError if it belongs to another run, or if the images
        have changed.
        """
        state, notes = load_newest(self.folder.checkpoint, self.parts.device)
        self.check(state)
        self.parts.notes += notes
        if "arithmetic" in state:  # older runs take what their hardware multiplies
            self.step.engine = with_stored_precision(self.step.engine, state["arithmetic"])
        self.step.load_state_dict(state)
        self.selection.state, self.parts.probe = state.get("best"), state.get("probe")
        self.position = Position(**state["position"])
        self.tally = Tally(self.shares_of(state["sums"]))
        if (before := len(state["sums"])) != self.world.size:
            self.parts.notes.append(
                f"a run of {counted(before, 'process', 'es')} is resumed by {self.world.size}: images and order are "
                "the same, but batch statistics, mixes and pairs are drawn within each process, so the bits differ"
            )

    def check(self, state: dict[str, Any]) -> None:
        """Raises UserError if ``state`` belongs to another run."""
        path, ema = self.folder.checkpoint, self.step.ema
        if "experiment" in state:
            before, now = build_experiment(state["experiment"]), self.experiment
            if len(state["position"]["rows"]) == max(now.optim.restarts, default=-1):
                now = before_restart(now, before)
            if changed := difference(before, now):
                raise UserError(f"{path} belongs to another run: {'; '.join(changed)}; put back the right one")
        if "data" in state:  # older checkpoints lack it
            self.parts.data.check_unchanged(state["data"], self.folder.path)
        if state.get("splits_digest", self.splits_digest) != self.splits_digest:
            raise UserError(f"the splits have changed since {self.folder.path} was stopped; put the data back as they "
                            "were, or start a new run with another --out")  # fmt: skip
        check_fits(path, "method", state["method"], self.step.method.state_dict())
        check_optimizer(path, state["optimizer"], self.step.optimizer)
        if state["scaler"].keys() != self.step.scaler.state_dict().keys():
            raise UserError(f"{path} belongs to another run: it has another precision")
        if ema is not None or state.get("ema") is not None:
            check_fits(path, "ema", state.get("ema"), {} if ema is None else ema.state_dict())
        if state.get("best") is not None:
            check_fits(path, "best", state["best"]["weights"], self.parts.deployed.state_dict())
        check_position(path, state["position"], self.experiment.run.epochs, len(self.parts.loader))
        if any(part.keys() != state["sums"][0].keys() for part in state["sums"]):
            raise UserError(f"{path} is damaged: its sums differ in their names; delete it and start again")

    def shares_of(self, sums: list[dict[str, Any]]) -> dict[str, float]:
        """The sums of this process, from those of all processes of the stopped run, whose number may differ."""
        if len(sums) == self.world.size:
            return {name: float(value) for name, value in sums[self.world.rank].items()}
        ratio = self.world.size / len(sums) if self.world.first else 0.0
        return {name: ratio * sum(float(part[name]) for part in sums) for name in sums[0]}

    def finish(self) -> dict[str, Any]:
        """Score the deployed model in fp32 on every split, save it, and write and return the summary."""
        deployed, data = self.parts.deployed, self.parts.data
        row = self.selection.choose(self.position.rows, deployed)
        chosen, task = f"{data.scored}_", self.parts.task
        if task.fits and data.scored == "val":
            self.world.share(deployed.buffers())
            task.fit(metric_values(deployed, self.parts.score_loaders["val"], task, self.parts.device))
        scores = {
            split: {name: row[chosen + name] for name in task.names if chosen + name in row}
            if split == data.scored and not task.fits and self.arithmetic is None
            else self.score(split)
            for split in self.parts.score_loaders
        }
        if not self.world.first:
            return {}
        self.writer.wait()
        self.parts.save(self.folder.model)
        if warning := below_probe(self.parts.probe, scores):
            self.parts.notes.append(warning)
            warn(f"note: {warning}")
        summary = summarise(self.parts, self.position, self.selection, row, scores)
        self.folder.write_summary(summary)
        drop_previous(self.folder.checkpoint)
        return summary


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A seed of 63 bits for one step of one rank: splitmix64 of the three numbers."""
    x = (seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9 + step + 1) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1
