"""Measure once, on a CPU, what is faster there: the precision of a network, and matrix products for convolutions."""

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
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import autocast, has_bf16
from mixskd.training.convolution import Limits, SmallMapConvolutions, SmallMaps
from mixskd.training.convolution_limits import LEAST_CHANNELS, limits_here
from mixskd.training.engine import Engine
from mixskd.training.measurements import BUDGET, race, remembered, seconds_of

CPU = torch.device("cpu")
Net = TypeVar("Net", bound=nn.Module)


def pays(engine: Engine, run: RunConfig, device: torch.device) -> bool:
    """Whether anything may be measured: only on a CPU, in types that it multiplies, and unless ``run`` forbids it."""
    if not run.measure or device.type != "cpu":
        return False
    return engine.precision == "fp32" or (engine.precision == "bf16" and has_bf16(device))


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
        choose = run.precision == "auto" and engine.precision == "bf16"
        if engine.small_maps is not None and has_wide_convolutions(network):
            seconds = BUDGET * 0.4 if choose else BUDGET
            engine = dataclasses.replace(engine, small_maps=limits_here(engine.precision, seconds))
        if choose:
            engine = _faster(engine, name, network, outputs, shape, end - time.perf_counter())
    return stored(engine, world.same(to_store(engine)), device) if world.size > 1 else engine


def has_wide_convolutions(network: nn.Module) -> bool:
    """Whether a matrix product may be faster for any convolution of ``network``."""
    return any(
        isinstance(part, nn.Conv2d) and part.groups == 1 and part.bias is None and part.in_channels >= LEAST_CHANNELS
        for part in network.modules()
    )


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
    reason = f"measured here: {rates[best]:.1f} images/s, with {other} {rates[other]:.1f}"
    small_maps = engine.small_maps if best == "bf16" else SmallMaps()
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
        products = (
            SmallMapConvolutions(engine.small_maps) if engine.small_maps and precision == "bf16" else nullcontext()
        )
        with autocast(CPU, precision), products:
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
    products = (
        None if engine.small_maps is None else [list(limits) for limits in dataclasses.astuple(engine.small_maps)]
    )
    return {"precision": engine.precision, "reason": engine.reason, "products": products}


def stored(engine: Engine, kept: Mapping[str, Any], device: torch.device) -> Engine:
    """``engine`` with the arithmetic that :func:`to_store` gave, as far as the device can do it."""
    small_maps = None
    if not engine.compile and device.type == "cpu":  # else the run began on another machine
        if products := kept.get("products"):
            small_maps = SmallMaps(*(Limits(*limits) for limits in products))
        elif earlier := kept.get("small_maps"):  # of a version with a product for the weight alone
            small_maps = SmallMaps(to_weight=Limits(earlier[0], 0, *earlier[1:]))
    return dataclasses.replace(engine, precision=kept["precision"], reason=kept["reason"], small_maps=small_maps)
