"""One update of the weights. It reads no tensor back to the host, whatever the method."""

from __future__ import annotations

import contextlib
import inspect
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


class TrainStep:
    """Forward, backward and SGD step of ``method`` on one batch, in ``precision``, split into ``accumulate`` parts.

    With several processes each calls it with its own part of the batch, and the gradients are averaged over all.
    """

    def __init__(
        self,
        method: Method,
        optim: OptimConfig,
        device: torch.device,
        precision: str,
        accumulate: int = 1,
        world: World | None = None,
    ) -> None:
        self.method = method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.precision, self.accumulate = device, precision, accumulate
        self.forward: nn.Module = self.method
        if world is not None and world.size > 1:
            # static_graph: a term that is switched off leaves parameters without gradient, the same in every step.
            # Running statistics are not used in training; those of the first process are evaluated and saved.
            known = inspect.signature(DistributedDataParallel).parameters
            sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {sync: False, "static_graph": True}
            self.forward = DistributedDataParallel(self.method, **options)
        self.optimizer = torch.optim.SGD(
            [p for p in method.parameters() if p.requires_grad],
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        small_maps = device.type == "cpu" and precision == "bf16"
        self.convolutions = SmallMapConvolutions() if small_maps else contextlib.nullcontext()
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def __call__(self, batch: Batch, lr: float, seed: int) -> dict[str, Tensor]:
        """Update the weights from ``batch``; the scalar terms, detached.

        Every random number of the step follows from ``seed`` alone, so that a run can be resumed at any step.
        """
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts = [self._backward(part) for part in split(batch, self.accumulate)]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        draws = self.method.draw(batch.images)
        with autocast(self.device, self.precision), self.convolutions:
            terms = self.forward(batch.images, batch.labels, draws, **batch.extra)
        self.scaler.scale(terms["loss"] / self.accumulate).backward()
        del terms["output"]
        return {name: term.detach().float() for name, term in terms.items()}

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


def split(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in ``parts`` equal parts; scalars go to all of them."""
    if parts == 1:
        return [batch]
    extra = {name: x.chunk(parts) if x.ndim else [x] * parts for name, x in batch.extra.items()}
    return [
        Batch(images, labels, {name: x[i] for name, x in extra.items()})
        for i, (images, labels) in enumerate(zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True))
    ]
