"""One update of the weights. It reads no tensor back to the host, whatever the method."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mixskd.config import OptimConfig
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.errors import UserError
from mixskd.errors.faults import is_out_of_memory
from mixskd.errors.terminal import warn
from mixskd.methods.base import Method
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import autocast
from mixskd.training.averaging import MovingAverage, average_gradients
from mixskd.training.engine import Engine
from mixskd.training.graphs import GraphedStep, RecordingError, reason
from mixskd.training.optimizers import build_optimizer, executed_as, freeze, freeze_norms
from mixskd.training.recomputing import checkpoint_stages


class TrainStep:
    """Forward, backward and optimizer step of ``method`` on a batch, with the optimisations of ``engine``.

    The batch is split into ``accumulate`` parts. With several processes each gets its part of the batch, and the
    gradients are averaged over all: by DistributedDataParallel during the backward pass of an eager step, else by one
    message after it, which a compiled step and a CUDA graph can hold. The step also updates ``ema``, the moving average
    of the backbone's weights, if it is given.

    If compiling or recording fails, the step continues without it and loses no update; ``notes`` and the log give the
    reason, and ``engine`` is then what is executed. Raises UserError if the memory of a GPU is too small.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        device: torch.device,
        engine: Engine,
        accumulate: int = 1,
        world: World | None = None,
        clip_norm: float = 0.0,
        ema: MovingAverage | None = None,
    ) -> None:
        self.method, self.ema = method, ema
        self.device, self.accumulate = device, accumulate
        self.engine = engine
        self.world = world or World()
        self.notes: list[str] = []
        # A compiler that fails in the middle of the first step may have left new statistics of the batch norms.
        self.buffers: list[Tensor] | None = None
        if engine.compile:
            self.method.compile(dynamic=False)
            self.buffers = [x.clone() for x in method.buffers()]
        self.forward: nn.Module = self.method
        self.flat = self.world.size > 1 and (engine.compile or engine.cuda_graphs)
        if self.flat:
            self.world.share([*method.parameters(), *method.buffers()])
        elif self.world.size > 1:
            self.forward = _distributed(self.method)
        self.optimizer, self.clip_norm = optimizer, clip_norm
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        # A recorded step reads the rates from the device. Only fused optimizers do: others read them back to the host,
        # once for each parameter.
        on_device = engine.cuda_graphs and engine.fused
        self.base_rates = torch.tensor(self.scales, device=device) if on_device else None
        self.rates = torch.zeros_like(self.base_rates) if self.base_rates is not None else None
        self.progress, self.progress_now = torch.zeros((), device=device), 0.0
        self.scaler = torch.amp.GradScaler(device.type, enabled=engine.precision == "fp16")
        self._choose_update()

    def _choose_update(self) -> None:
        self.update: Callable[[Batch | DeferredBatch], dict[str, Tensor]] = self._update
        if self.engine.cuda_graphs:
            self.update = GraphedStep(self._update)

    def __call__(self, batch: Batch | DeferredBatch, lr: float, seed: int, progress: float = 1.0) -> dict[str, Tensor]:
        """Update the weights from ``batch`` and return the loss terms: detached scalars, valid until the next call.

        All random numbers of the step follow from ``seed``, so that a run can be resumed at any step. ``progress`` is
        for methods that need it.
        """
        self._set_rate(lr)
        # A recorded step reads the progress from the device. It is sent there only when it changes, once an epoch.
        if self.method.needs.progress and progress != self.progress_now:
            self.progress.fill_(progress)
            self.progress_now = progress
        while True:
            torch.manual_seed(seed)
            try:
                terms = self.update(batch)
            except Exception as error:
                self._recover(error, images=len(batch[0]))
            else:
                self.buffers = None
                return terms

    def _set_rate(self, lr: float) -> None:
        groups = self.optimizer.param_groups
        if self.rates is None or self.base_rates is None:
            for group, scale in zip(groups, self.scales, strict=True):
                group["lr"] = lr * scale
            return
        torch.mul(self.base_rates, lr, out=self.rates)
        for group, rate in zip(groups, self.rates.unbind(), strict=True):
            group["lr"] = rate

    def _update(self, batch: Batch | DeferredBatch) -> dict[str, Tensor]:
        if isinstance(batch, DeferredBatch):
            batch = batch.make(batch.indices, batch.source, batch.size)
        by_loop = {"progress": self.progress} if self.method.needs.progress else {}
        parts = [batch] if self.accumulate == 1 else split(batch, self.accumulate)
        terms: list[dict[str, Tensor]] = []
        for part in parts:
            draws = self.method.draw(part.images)
            with autocast(self.device, self.engine.precision):
                out = self.forward(part.images, part.labels, draws, **part.extra, **by_loop)
            self.scaler.scale(out["loss"] / self.accumulate).backward()
            terms.append({name: term.detach().float() for name, term in out.items() if name != "output"})
        if self.flat:
            average_gradients(self.parameters, self.world)
        if self.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.method.backbone)
        self.method.after_update()
        return {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}

    def _recover(self, error: Exception, images: int) -> None:
        """Disable the optimisation that failed with ``error``, so that the step of ``images`` images can be repeated.

        Raises ``error`` if no optimisation caused it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for leftover in ("grad_scale", "found_inf"):  # of the loss scaler, if the optimizer's own step failed
            if hasattr(self.optimizer, leftover):
                delattr(self.optimizer, leftover)
        if isinstance(error, RecordingError):
            self.update = self._update
            self.engine = dataclasses.replace(self.engine, cuda_graphs=False)
            scaler = torch.amp.GradScaler(self.device.type, enabled=self.scaler.is_enabled())
            scaler.load_state_dict(self.scaler.state_dict())  # it may be in the middle of a step
            self.scaler = scaler
            self._note(f"the step is not replayed as a CUDA graph: {error}")
        elif is_out_of_memory(error):
            raise UserError(
                f"the memory of {self.device} is too small for a step of {images} images; try a larger "
                f"--run.accumulate (now {self.accumulate}) or a smaller --run.batch-size"
            ) from error
        elif self.buffers is not None and not isinstance(error, UserError):
            self.method._compiled_call_impl = None
            self.engine = dataclasses.replace(self.engine, compile=False)
            with torch.no_grad():
                for now, before in zip(self.method.buffers(), self.buffers, strict=True):
                    now.copy_(before)
            self.buffers = None
            self._note(f"the step is not compiled: {reason(error)}")
        else:
            raise error

    def close(self) -> None:
        """Release the CUDA graph. No step can follow."""
        if isinstance(self.update, GraphedStep):
            self.update.close()

    def _note(self, note: str) -> None:
        self.notes.append(note)
        warn(f"note: {note}")

    def state_dict(self) -> dict[str, object]:
        """Weights, buffers, momentum, loss scale and moving average."""
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Continue from the state that :meth:`state_dict` returned."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(executed_as(self.optimizer, state["optimizer"]))
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.buffers is not None:
            self.buffers = [x.clone() for x in self.method.buffers()]
        self._choose_update()  # a recorded step would use the momentum that was replaced


def _distributed(method: Method) -> DistributedDataParallel:
    # static_graph: a term that is switched off leaves parameters without gradient, the same in every step.
    # Running statistics are not used in training; those of the first process are evaluated and saved.
    known = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False, "static_graph": True}
    return DistributedDataParallel(method, **options)


def build_step(
    method: Method,
    optim: OptimConfig,
    device: torch.device,
    engine: Engine,
    accumulate: int = 1,
    world: World | None = None,
    *,
    started: bool = False,
) -> TrainStep:
    """The step of ``method`` on ``device`` with the optimizer, frozen stages, clipping and moving average of ``optim``.

    ``started``: the backbone starts from trained weights. Raises UserError as :func:`build_optimizer` does.
    """
    freeze(method.backbone, optim.freeze)
    if optim.norms == "frozen":
        freeze_norms(method)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    method = method.to(device, memory_format=layout)  # type: ignore[call-overload]
    if engine.checkpoint:
        checkpoint_stages(method)
    optimizer = build_optimizer(method, optim, engine, started=started)
    ema = MovingAverage(method.backbone, optim.ema) if optim.ema > 0 else None
    return TrainStep(method, optimizer, device, engine, accumulate, world, optim.clip_norm, ema)


def split(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in ``parts`` equal parts."""
    extra = {name: x.chunk(parts) for name, x in batch.extra.items()}
    return [
        Batch(images, labels, {name: x[i] for name, x in extra.items()})
        for i, (images, labels) in enumerate(zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True))
    ]
