"""Activation checkpointing gives the same updates, and keeps less for the backward pass."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mixskd.methods import METHODS
from mixskd.training.engine import Engine
from mixskd.training.recomputing import checkpoint_stages
from mixskd.training.step import _distributed, build_step
from tests.conftest import make_toy
from tests.methods.support import make
from tests.training.test_step import CPU, OPTIM, make_batch, make_method


def trained(name: str, engine: Engine) -> tuple[list[float], dict[str, Tensor]]:
    method = make_method(name)
    method.backbone.stages[1].add_module("dropout", nn.Dropout(0.2))
    step = build_step(method, OPTIM, CPU, engine)
    losses = [step(make_batch(method.needs, i), 0.05, seed=i, progress=0.5)["loss"].item() for i in range(2)]
    return losses, method.state_dict()


@pytest.mark.parametrize("name", METHODS)
def test_checkpointed_step_takes_the_same_updates(name: str) -> None:
    plain, checkpointed = (trained(name, Engine(checkpoint=on)) for on in (False, True))
    assert checkpointed[0] == plain[0]
    for key, value in plain[1].items():  # running statistics among them
        assert torch.equal(checkpointed[1][key], value), key


def kept(checkpoint: bool) -> int:
    """The bytes that the forward pass keeps for the backward pass."""
    method, found = make("mixskd", make_toy(stages=4)), {}
    if checkpoint:
        checkpoint_stages(method)
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    own = {p.untyped_storage().data_ptr() for p in method.parameters()}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        loss = method(images, torch.arange(8) % 5)["loss"]
    total = sum(found.values())
    loss.backward()
    return total


def test_checkpointed_stages_keep_less() -> None:
    assert kept(checkpoint=True) < 0.6 * kept(checkpoint=False)


def test_checkpointed_step_compiles_without_breaks() -> None:
    plain, compiled = (make("baseline", make_toy()) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    checkpoint_stages(compiled)
    compiled.compile(backend="aot_eager", fullgraph=True)
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    for method in (plain, compiled):
        method(images, labels)["loss"].backward()
    for own, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
    for own, other in zip(compiled.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(own, other)


def test_checkpointed_step_of_distributed_processes() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        losses = []
        for checkpoint in (False, True):
            step = build_step(make_method("mixskd"), OPTIM, CPU, Engine(checkpoint=checkpoint))
            step.forward = _distributed(step.method)
            losses.append([step(make_batch(step.method.needs, i), 0.05, seed=i)["loss"].item() for i in range(2)])
    finally:
        dist.destroy_process_group()
    assert losses[0] == losses[1]


def test_copy_of_a_checkpointed_method_has_its_own_weights() -> None:
    method = make("baseline", make_toy())
    checkpoint_stages(method)
    copied, images = copy.deepcopy(method), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert method.backbone(images).abs().max() > 0
    assert copied.backbone(images).abs().max() == 0
