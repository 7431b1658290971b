"""Processes of test_distributed: three steps of every method on this process's half of a batch, states saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixskd.config import OptimConfig
from mixskd.data.batch import Batch
from mixskd.methods import METHODS, Method
from mixskd.methods.parts.mixing import Mix
from mixskd.runtime.distributed import World, join
from mixskd.training.engine import Engine
from mixskd.training.step import build_step
from tests.conftest import make_toy_without_norm
from tests.methods.support import extras, make
from tests.training import cuda_stub

# What relates the images of a batch is by definition within a process: DDGSD's mean features, BAKE's neighbours, USKD's
# mean confidence.
OPTIONS: dict[str, dict[str, Any]] = {"ddgsd": {"mu": 0.0}, "bake": {"omega": 0.0}, "uskd": {"alpha": 0.0}}

IN_ONE_MESSAGE, RECORDED = ", gradients in one message", ", recorded"


def steps(name: str, world: World, engine: Engine, count: int = 3) -> dict[str, Tensor]:
    """The state after ``count`` steps. Batch norm, as in FRSKD's self-teacher, uses its running statistics."""
    torch.manual_seed(0)
    method = make(name, make_toy_without_norm(), **OPTIONS.get(name, {}))
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images, labels = torch.randn(count, 8, 3, 8, 8), torch.randint(5, (count, 8))
    others = [extras(dataclasses.replace(method.needs, progress=False), images[i]) for i in range(count)]
    draws = [paired_within_halves(method.draw(images[i]), world) for i in range(count)]
    step = build_step(method, OptimConfig(lr=0.05), torch.device("cpu"), engine, 1, world)
    assert step.flat == ((engine.compile or engine.cuda_graphs) and world.size > 1)
    for i in range(count):
        part = world.part(8)
        extra = {key: x[part] for key, x in others[i].items()}
        method.draw = lambda images, i=i: draws[i]  # type: ignore[method-assign,misc]
        step(Batch(images[i, part], labels[i, part], extra), 0.05, seed=i, progress=0.5)
    if engine.cuda_graphs:
        assert step.update.graph.replays == count - 3
        step.close()
    return {key: value.clone() for key, value in method.state_dict().items()}


def paired_within_halves(draws: Any, world: World) -> Any:
    """``draws`` with a permutation that stays within the halves of the batch, or this process's half of it."""
    halves = [torch.randperm(4), torch.randperm(4)]
    if isinstance(draws, Mix):
        whole = torch.cat([halves[0], halves[1] + 4])
        return draws._replace(permutation=whole if world.size == 1 else halves[world.rank], inverse=None)
    return tuple(paired_within_halves(x, world) for x in draws) if isinstance(draws, tuple) else draws


def main(folder: Path) -> None:
    """Save the states of all methods in a file whose name says how many processes there are."""
    torch.set_default_dtype(torch.float64)  # so exact that a wrong mean shows under the smallest weight of a term
    torch.set_num_threads(1)
    with join("cpu") as world:
        states = {name: steps(name, world, Engine()) for name in METHODS}
        # As where the step is compiled or recorded; the compiler itself does not matter here.
        Method.compile = lambda self, **_: None  # type: ignore[method-assign]
        states |= {name + IN_ONE_MESSAGE: steps(name, world, Engine(compile=True)) for name in ("mixskd", "pskd")}
        with pytest.MonkeyPatch.context() as patch:  # the message and the tables of all processes within the recording
            cuda_stub.install(patch)
            recorded = Engine(fused=True, cuda_graphs=True)
            states |= {name + RECORDED: steps(name, world, recorded, 6) for name in ("mixskd", "pskd", "dlb")}
        if world.first:
            torch.save(states, folder / f"states{world.size}.pt")
