"""One update of the weights. It reads no tensor back to the host, whatever the method."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixskd.config import OptimConfig
from mixskd.distributed import World
from mixskd.methods.base import Method
from mixskd.needs import Batch
from mixskd.precision import autocast
from mixskd.training.convolution import SmallMapConvolutions
from mixskd.training.engine import Engine
from mixskd.training.graphs import GraphedStep


class TrainStep:
    """Forward, backward and SGD step of ``method`` on one batch, as ``engine`` says, split into ``accumulate`` parts.

    With several processes each calls it with its own part of the batch, and the gradients are averaged over all.
    """

    def __init__(
        self,
        method: Method,
        optim: OptimConfig,
        device: torch.device,
        engine: Engine,
        accumulate: int = 1,
        world: World | None = None,
    ) -> None:
        layout = torch.channels_last if engine.channels_last else torch.contiguous_format
        self.method = method.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.device, self.engine, self.accumulate = device, engine, accumulate
        if engine.compile:
            self.method.compile(dynamic=False)
        self.forward: nn.Module = self.method
        if world is not None and world.size > 1:
            # static_graph: a term that is switched off leaves parameters without gradient, the same in every step.
            # Running statistics are not used in training; those of the first process are evaluated and saved.
            known = inspect.signature(DistributedDataParallel).parameters
            sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {sync: False, "static_graph": True}
            self.forward = DistributedDataParallel(self.method, **options)
        self.clip_norm = optim.clip_norm
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            fused=engine.fused,
        )
        if engine.precision == "fp16" and optim.momentum > 0:
            # A first step that the scaler skips would leave the fused optimizer with unwritten memory for momentum.
            for parameter in self.parameters:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        # On a GPU the rate lies where the kernels read it, so that a recorded step sees each new one.
        self.rate = torch.full((), optim.lr, device=device) if device.type == "cuda" else None
        self.convolutions = SmallMapConvolutions() if engine.small_maps else contextlib.nullcontext()
        self.scaler = torch.amp.GradScaler(device.type, enabled=engine.precision == "fp16")
        self._choose_update()

    def _choose_update(self) -> None:
        self.update: Callable[..., dict[str, Tensor]] = self._update
        if self.engine.cuda_graphs:
            self.update = GraphedStep(self._update)

    def __call__(self, batch: Batch, lr: float, seed: int) -> dict[str, Tensor]:
        """Update the weights from ``batch``; the scalar terms, detached.

        Every random number of the step follows from ``seed`` alone, so that a run can be resumed at any step.
        """
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = lr if self.rate is None else self.rate.fill_(lr)
        return self.update([(part, self.method.draw(part.images)) for part in split(batch, self.accumulate)])

    def _update(self, parts: list[tuple[Batch, Any]]) -> dict[str, Tensor]:
        terms = [self._backward(batch, draws) for batch, draws in parts]
        if self.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}

    def _backward(self, batch: Batch, draws: Any) -> dict[str, Tensor]:
        with autocast(self.device, self.engine.precision), self.convolutions:
            terms = self.forward(batch.images, batch.labels, draws, **batch.extra)
        self.scaler.scale(terms["loss"] / self.accumulate).backward()
        return {name: term.detach().float() for name, term in terms.items() if name != "output"}

    def state_dict(self) -> dict[str, object]:
        """Weights, buffers, momentum and loss scale."""
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self._choose_update()  # a recorded step would go on with the momentum that was replaced


def split(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in ``parts`` equal parts; scalars go to all of them."""
    if parts == 1:
        return [batch]
    extra = {name: x.chunk(parts) if x.ndim else [x] * parts for name, x in batch.extra.items()}
    return [
        Batch(images, labels, {name: x[i] for name, x in extra.items()})
        for i, (images, labels) in enumerate(zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True))
    ]
