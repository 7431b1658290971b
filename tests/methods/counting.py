"""What a method costs, counted from its forward pass alone: operations, and what is kept for the backward pass."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mixskd.config import MethodChoice
from mixskd.training.classification import build_method, build_network
from tests.methods.support import options_of

BATCH = 8


class Counted(NamedTuple):
    """Of a batch.

    ``operations``: of convolutions and matrix products. ``kept``: bytes kept for the backward pass, without parameters.
    """

    operations: float
    kept: int


class Operations(TorchDispatchMode):
    """Counts each operation three times, for the backward pass takes two more; once where there is no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out) * (3 if torch.is_grad_enabled() else 1)
        return out


@cache
def count(name: str, backbone: str, classes: int, size: int) -> Counted:
    """The cost of an update of the method ``name`` with its usual settings."""
    with torch.device("meta"):
        network = build_network(backbone, classes, size)
        choice = MethodChoice(name, options_of(name))
        method = build_method(choice, network, BATCH, BATCH, load=lambda _: build_network(backbone, classes, size))
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode():
        state = {
            key: torch.empty(x.shape, dtype=x.dtype, requires_grad=x.requires_grad)
            for key, x in [*method.named_parameters(), *method.named_buffers()]
        }
        own = {x.untyped_storage()._cdata for x in state.values()}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return x

        needs = method.needs
        images, labels = torch.randn(BATCH, 3, size, size), torch.zeros(BATCH, dtype=torch.long)
        extra = {
            "views": torch.randn(BATCH, needs.views - 1, 3, size, size) if needs.views > 1 else None,
            "partners": torch.randn(BATCH, needs.partners, 3, size, size) if needs.partners else None,
            "indices": torch.arange(BATCH) if needs.indices else None,
            "slots": torch.arange(BATCH) if needs.slots else None,
            "progress": torch.ones(()) if needs.progress else None,
        }
        inputs = images, labels, method.draw(images)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), Operations() as operations:
            functional_call(method, state, inputs, {key: x for key, x in extra.items() if x is not None})
        return Counted(operations.total, sum(storage.nbytes() for storage in kept.values()))
