"""The loop round the step: it feeds, logs, evaluates and saves, and names no method."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.backbones import StagedBackbone
from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.pretrained import PUBLISHED, published_normalisation
from mixskd.config import Experiment
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.deploy.model_file import save_model
from mixskd.distributed import World, join, restarts
from mixskd.errors import UserError
from mixskd.evaluation.accuracy import evaluate_heads, evaluate_model
from mixskd.needs import Batch
from mixskd.precision import choose_device, device_name
from mixskd.training.building import build_method, with_sync_bn
from mixskd.training.checkpoint import load_checkpoint, save_checkpoint
from mixskd.training.engine import choose_engine, configure_process
from mixskd.training.interrupt import Interrupt
from mixskd.training.moving_average import MovingAverage
from mixskd.training.position import Position
from mixskd.training.progress import Progress
from mixskd.training.run_folder import RunFolder, provenance
from mixskd.training.schedule import learning_rate, remarks
from mixskd.training.step import TrainStep
from mixskd.training.tally import Tally


class Trainer:
    """One run of an experiment in ``folder``."""

    def __init__(self, experiment: Experiment, folder: RunFolder, world: World | None = None) -> None:
        self.experiment, self.folder, self.world = experiment, folder, world or World()
        run = experiment.run
        self.device = choose_device(run.device)
        configure_process(self.device, deterministic=run.deterministic)
        engine, notes = choose_engine(run, self.device, self.world)
        self.precision = engine.precision
        torch.manual_seed(run.seed)
        self.data = load_data(experiment.data, run.seed)
        method, weights_notes = build_method(experiment, self.data, resumed=folder.checkpoint.exists())
        if experiment.weights == PUBLISHED or (experiment.weights and experiment.backbone.startswith(PREFIX)):
            mean, std = published_normalisation(experiment.backbone)
            self.data = dataclasses.replace(self.data, mean=mean, std=std)
        self.notes = [*self.data.notes, *notes, *weights_notes, *remarks(experiment.optim, run.epochs)]
        self.needs = method.needs
        if run.sync_bn:
            if self.device.type != "cuda":
                raise UserError("run.sync_bn needs GPUs; leave it out on the CPU")
            method = with_sync_bn(method)
        self.loader = make_train_loader(
            self.data, experiment.data, run.batch_size, self.device, run.seed, method.needs, self.world
        )
        self.test_loader = make_test_loader(self.data, self.device, workers=experiment.data.workers, world=self.world)
        if (run.batch_size // self.world.size) % run.accumulate:
            raise UserError(
                f"run.accumulate {run.accumulate} does not divide the {run.batch_size // self.world.size} images "
                "of each process"
            )
        self.step = TrainStep(method, experiment.optim, self.device, engine, run.accumulate, self.world)
        self.ema: MovingAverage | None = None
        if experiment.optim.ema > 0:
            self.ema = MovingAverage(method.backbone, experiment.optim.ema)
        if run.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise UserError("run.tensorboard needs tensorboard: pip install 'mixskd[tensorboard]'")
        self.position = Position()
        self.tally = Tally()
        self.started = time.perf_counter()

    @property
    def deployed(self) -> StagedBackbone:
        """The classifier that is evaluated and saved: the backbone, or its moving average."""
        return self.ema.module if self.ema is not None else self.step.method.backbone  # type: ignore[return-value]

    def run(self) -> dict[str, Any]:
        """Train from the present position to the end; the summary."""
        epochs, length = self.experiment.run.epochs, len(self.loader)
        progress = Progress(self.experiment, length, self.notes, quiet=not self.world.first)
        with progress, Interrupt(self.world) as interrupt:
            for epoch in range(len(self.position.rows), epochs):
                first = self.position.step - epoch * length
                for batch in self.loader.epoch(epoch, first):
                    self.update(batch, epoch)
                    progress.advance(self.position, self.tally.sums, epoch, self.learning_rate)
                    if self.position.step % self.experiment.run.log_every == 0:
                        self.check_finite()
                    stop = interrupt.signal()
                    if stop or self.due():
                        self.save()
                    if stop:
                        interrupt.leave(stop, self.folder.path)
                self.close_epoch(epoch)
                progress.epoch_done(self.position.rows[-1])
                if (epoch + 1) % self.experiment.run.checkpoint_every_epochs == 0 or epoch + 1 == epochs:
                    self.save()
                elif self.world.first:
                    self.folder.write_metrics(self.position.rows)
        return self.finish()

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.experiment.optim, self.position.step, len(self.loader), self.experiment.run.epochs)

    def update(self, batch: Batch, epoch: int) -> None:
        """One step, and its terms added up on the device."""
        step = self.position.step
        if self.needs.progress:
            share = torch.full((), (epoch + 1) / self.experiment.run.epochs, device=self.device)
            batch = batch._replace(extra={**batch.extra, "progress": share})
        terms = self.step(batch, self.learning_rate, step_seed(self.experiment.run.seed, step, self.world.rank))
        if self.ema is not None:
            self.ema.update_parameters(self.step.method.backbone)
        self.tally.add(terms, step)
        self.position.step += 1
        self.position.images += len(batch.labels) * self.world.size

    def due(self) -> bool:
        every = self.experiment.run.checkpoint_every_steps
        return every > 0 and self.position.step % every == 0

    def close_epoch(self, epoch: int) -> None:
        """Add the epoch's row, with the deployed classifier's scores if they are due; start new sums."""
        self.check_finite()
        steps = len(self.loader)
        row: dict[str, float] = {"epoch": epoch + 1, "step": self.position.step}
        row["lr"] = learning_rate(self.experiment.optim, self.position.step - 1, steps, self.experiment.run.epochs)
        row |= {
            f"train_{name}": self.world.total(value).item() / steps / self.world.size
            for name, value in self.tally.sums.items()
        }
        self.position.rows.append(row | self.evaluate(epoch))
        self.tally = Tally()

    def evaluate(self, epoch: int) -> dict[str, float]:
        """The test scores after ``epoch``; empty if none are due."""
        run = self.experiment.run
        if (epoch + 1) % run.evaluate_every and epoch + 1 < run.epochs:
            return {}
        self.world.share(self.deployed.buffers())
        if run.all_heads:
            self.world.share(self.step.method.buffers())
        how: dict[str, Any] = {"device": self.device, "precision": self.precision, "world": self.world}
        scores = evaluate_model(self.deployed, self.test_loader, **how)
        row: dict[str, float] = {f"test_{name}": scores[name] for name in ("top1", "top5", "loss")}
        if run.all_heads:
            row |= evaluate_heads(self.step.method, self.test_loader, **how)
        return row

    def check_finite(self) -> None:
        """Raises UserError naming step, term and last good checkpoint if any term was ever NaN or infinite."""
        steps = {name: self.world.highest(step) for name, step in self.tally.first_bad().items()}
        bad = {name: step for name, step in steps.items() if step >= 0}
        if bad:
            name = min((n for n in bad if n != "loss"), key=lambda n: bad[n], default="loss")
            checkpoint = self.folder.checkpoint
            kept = (
                f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
            )
            raise UserError(
                f"the loss term {name!r} became NaN or infinite at step {bad[name] + 1}; {kept}; "
                "try a smaller --optim.lr or --run.precision fp32"
            )

    def save(self) -> None:
        """Write checkpoint.pt and metrics.csv, unless the run has diverged."""
        self.check_finite()
        sums = self.world.gather(self.tally.sums)
        if not self.world.first:
            return
        now = time.perf_counter()
        self.position.seconds += now - self.started
        self.started = now
        state = {
            "data": self.data.fingerprint,
            **self.step.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "position": dataclasses.asdict(self.position),
            "sums": sums,
        }
        save_checkpoint(self.folder.checkpoint, state)
        self.folder.write_metrics(self.position.rows)
        if self.experiment.run.tensorboard:
            self.folder.write_tensorboard(self.position.rows)

    def restore(self) -> None:
        """Go on from checkpoint.pt. Raises UserError if the images are no longer those of the run."""
        state = load_checkpoint(self.folder.checkpoint, self.device)
        if "data" in state:  # older checkpoints do not tell
            self.data.check_unchanged(state["data"], self.folder.path)
        self.step.load_state_dict(state)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.position = Position(**state["position"])
        self.tally = Tally(self.shares_of(state["sums"]))
        if (before := len(state["sums"])) != self.world.size:
            self.notes.append(
                f"resumed by {self.world.size} process(es) a run of {before}: the same images in the same order, but "
                "batch statistics, mixes and pairs are drawn within each process, so the bits differ"
            )
        if self.world.first:
            self.folder.write_metrics(self.position.rows)

    def shares_of(self, sums: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """This process's sums, from those of all processes of the run so far, be they another number."""
        if len(sums) == self.world.size:
            return sums[self.world.rank]
        ratio = self.world.size / len(sums) if self.world.first else 0.0
        return {name: ratio * torch.stack([part[name] for part in sums]).sum(0) for name in sums[0]}

    def finish(self) -> dict[str, Any]:
        """Save the deployed classifier and the summary."""
        experiment, rows = self.experiment, self.position.rows
        if not self.world.first:
            return {}
        save_model(
            self.deployed,
            self.folder.model,
            backbone_name=experiment.backbone,
            classes=self.data.classes,
            image_size=self.data.image_size,
            mean=self.data.mean,
            std=self.data.std,
        )
        best = max((row for row in rows if "test_top1" in row), key=lambda row: row["test_top1"])
        summary = {
            "experiment": {"backbone": experiment.backbone, "method": experiment.method.name,
                           "data": experiment.data.source, "seed": experiment.run.seed},
            "last": {"epoch": rows[-1]["epoch"], "top1": rows[-1]["test_top1"], "top5": rows[-1]["test_top5"]},
            "best_on_test": {"epoch": best["epoch"], "top1": best["test_top1"], "top5": best["test_top5"]},
            "notes": self.notes,
            "updates": self.position.step,
            "images": self.position.images,
            "seconds": round(self.position.seconds, 1),
            "images_per_second": round(self.position.images / max(self.position.seconds, 1e-9), 1),
            "processes": self.world.size,
            "precision": self.precision,
            "device": device_name(self.device),
            "classes": len(self.data.classes),
            "image_size": self.data.image_size,
            "parameters": sum(p.numel() for p in self.deployed.parameters()),
            "parameters_in_training": sum(p.numel() for p in self.step.method.parameters()),
            **provenance(),
        }  # fmt: skip
        self.folder.write_summary(summary)
        return summary


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A seed of 63 bits for one step of one rank (splitmix64 of its three numbers)."""
    x = (seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9 + step + 1) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1


def train(experiment: Experiment, *, resume: bool = False) -> dict[str, Any]:
    """Run ``experiment``, in all processes that ``torchrun`` started, and return its summary; ``out`` is the folder.

    Raises UserError for anything in the experiment, its data or its folder that cannot work.
    """
    with join(experiment.run.device) as world:
        experiment = world.same(experiment)  # the default folder is numbered, so one process chooses it
        folder = RunFolder(Path(experiment.out))
        new_folder, new_run = not folder.path.exists(), not folder.config.exists()
        going_on = agreed(world, lambda: folder.claim(experiment, resume=resume or restarts() > 0))
        try:
            trainer = Trainer(experiment, folder, world)
            if going_on:
                trainer.restore()
        except UserError:
            if new_run and world.first:  # leave nothing behind of a run that never began
                folder.config.unlink(missing_ok=True)
                if new_folder:
                    folder.path.rmdir()
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
