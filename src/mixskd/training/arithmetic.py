"""Measure once, on a CPU with bf16 arithmetic, what is faster there: the precision of a network and its weight
gradients.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mixskd.config import RunConfig
from mixskd.distributed import World
from mixskd.precision import autocast, has_bf16
from mixskd.training.convolution import Limits, SmallMapConvolutions
from mixskd.training.convolution_limits import limits_here
from mixskd.training.engine import Engine
from mixskd.training.measurements import BUDGET, race, remembered, seconds_of

CPU = torch.device("cpu")
Net = TypeVar("Net", bound=nn.Module)


def pays(engine: Engine, run: RunConfig, device: torch.device) -> bool:
    """Whether there is anything to measure: only on a CPU with bf16 arithmetic, and unless ``run`` forbids it."""
    return run.measure and device.type == "cpu" and engine.precision == "bf16" and has_bf16(device)


def measured(
    engine: Engine,
    run: RunConfig,
    device: torch.device,
    world: World,
    name: str,
    network: Net,
    outputs: Callable[[Net, Tensor], Iterable[Tensor]],
    shape: tuple[int, int, int, int],
) -> Engine:
    """``engine`` with the settings that are faster here for ``network``, which computes its ``outputs`` from images of
    ``shape``.

    ``name`` identifies the network in the cache of measurements. The first process decides for all.
    """
    end = time.perf_counter() + BUDGET
    if world.first and pays(engine, run, device):
        if engine.small_maps is not None:
            engine = dataclasses.replace(engine, small_maps=limits_here())
        if run.precision == "auto":
            engine = _faster(engine, name, network, outputs, shape, end - time.perf_counter())
    return stored(engine, world.same(to_store(engine)), device) if world.size > 1 else engine


def _faster(
    engine: Engine, name: str, network: Net, outputs: Any, shape: tuple[int, int, int, int], seconds: float
) -> Engine:
    """``engine`` in the precision that takes more images a second forward and backward."""

    def measure() -> dict[str, float]:
        # How long the first step takes is not known before; with less time it waits for the next start.
        return images_per_second(engine, network, outputs, shape, seconds) if seconds >= BUDGET / 2 else {}

    what = f"images/s of {name}, {sum(p.numel() for p in network.parameters())} parameters, {'x'.join(map(str, shape))}"
    try:
        rates = remembered(what, measure)
    except Exception as error:  # whatever the network does not allow; training it will say so
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return dataclasses.replace(engine, reason=f"{engine.reason}; it cannot be measured: {first}")
    if rates is None:
        return dataclasses.replace(engine, reason=f"{engine.reason}; not measured, because the cache cannot be written")
    if rates.keys() != {"fp32", "bf16"}:
        return dataclasses.replace(engine, reason=f"{engine.reason}; not measured, because a step is too slow for that")
    best, other = sorted(rates, key=lambda kind: (rates[kind], kind == "bf16"), reverse=True)
    reason = f"measured faster than {other} here: {rates[best]:.1f} and {rates[other]:.1f} images/s"
    small_maps = engine.small_maps if best == "bf16" else None
    return dataclasses.replace(engine, precision=best, small_maps=small_maps, reason=reason)


def images_per_second(
    engine: Engine,
    network: Net,
    outputs: Callable[[Net, Tensor], Iterable[Tensor]],
    shape: tuple[int, int, int, int],
    seconds: float,
) -> dict[str, float]:
    """Images per second in fp32 and bf16, forward and backward, measured in about ``seconds``. ``network`` is not
    changed.

    If the time is too short for the whole batch, a part of it is timed. If it is too short for two images, nothing is
    found. Random numbers that are drawn later are the same as without this call.
    """
    end = time.perf_counter() + seconds
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(images: Tensor, precision: str) -> None:
        fast = engine.small_maps is not None and precision == "bf16"
        with autocast(CPU, precision), SmallMapConvolutions(engine.small_maps or Limits()) if fast else nullcontext():
            maps = list(outputs(network, images))
        torch.stack([x.float().square().mean() for x in maps]).sum().backward()
        network.zero_grad(set_to_none=True)

    def draw(count: int) -> Tensor:
        return torch.randn(count, *shape[1:]).contiguous(memory_format=torch.channels_last)

    with torch.random.fork_rng(devices=[]):
        few = draw(min(2, shape[0]))
        took = max(seconds_of(lambda: step(few, "fp32")), 1e-9)  # the slower one, and its warm-up
        left = end - time.perf_counter()
        if left < 2 * took:
            return {}
        images = draw(min(max(int(len(few) * left / (8 * took)), 2), shape[0]))  # each once before and three times
        kinds = {kind: (lambda kind=kind: step(images, kind)) for kind in ("fp32", "bf16")}
        return {kind: len(images) / took for kind, took in race(kinds, left).items()}


def to_store(engine: Engine) -> dict[str, Any]:
    """What a checkpoint keeps of ``engine``, so that a resumed run keeps its arithmetic."""
    limits = None if engine.small_maps is None else list(dataclasses.astuple(engine.small_maps))
    return {"precision": engine.precision, "reason": engine.reason, "small_maps": limits}


def stored(engine: Engine, kept: Mapping[str, Any], device: torch.device) -> Engine:
    """``engine`` with the arithmetic that :func:`to_store` gave, as far as the device can do it."""
    small_maps = None if kept["small_maps"] is None else Limits(*kept["small_maps"])
    if engine.compile or device.type != "cpu":  # the run began on another machine
        small_maps = None
    return dataclasses.replace(engine, precision=kept["precision"], reason=kept["reason"], small_maps=small_maps)
