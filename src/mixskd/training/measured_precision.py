"""Measure once, on a CPU that multiplies bf16, whether a network trains faster in bf16 or in fp32."""

import copy
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mixskd.config import RunConfig
from mixskd.errors import first_line
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import autocast, has_bf16
from mixskd.tasks.setup import Sample
from mixskd.training.engine import Engine
from mixskd.training.measurements import BUDGET, race, remembered, seconds_of

CPU = torch.device("cpu")


def is_measured(engine: Engine, run: RunConfig, device: torch.device) -> bool:
    """Whether the precision is chosen by a measurement: on a CPU with bf16 arithmetic, unless ``run`` decides."""
    open_choice = run.measure and run.precision == "auto" and engine.precision == "bf16"
    return open_choice and device.type == "cpu" and has_bf16(device)


def with_faster_precision(engine: Engine, run: RunConfig, device: torch.device, world: World, sample: Sample) -> Engine:
    """``engine`` in the precision that trains more images of ``sample`` per second on this machine.

    The first process measures and decides for all.
    """
    if world.first and is_measured(engine, run, device):
        engine = _faster(engine, sample)
    return with_stored_precision(engine, world.same(to_store(engine)))


def _faster(engine: Engine, sample: Sample) -> Engine:
    parameters = sum(p.numel() for p in sample.network.parameters())
    what = f"images/s of {sample.name}, {parameters} parameters, {'x'.join(map(str, sample.shape))}"
    try:
        rates = remembered(what, lambda: images_per_second(sample, BUDGET))
    except Exception as error:  # whatever the network does not allow; its training reports it
        return dataclasses.replace(engine, reason=f"{engine.reason}; it cannot be measured: {first_line(error)}")
    if rates is None:
        return dataclasses.replace(engine, reason=f"{engine.reason}; not measured, because the cache cannot be written")
    if rates.keys() != {"fp32", "bf16"}:
        return dataclasses.replace(engine, reason=f"{engine.reason}; not measured, because a step is too slow for that")
    best, other = sorted(rates, key=lambda kind: (rates[kind], kind == "bf16"), reverse=True)
    reason = f"measured here: {rates[best]:.1f} images/s, with {other} {rates[other]:.1f}"
    return dataclasses.replace(engine, precision=best, reason=reason)


def images_per_second(sample: Sample, seconds: float) -> dict[str, float]:
    """Images per second in fp32 and bf16, forward and backward, measured in about ``seconds``.

    If the time is too short for the whole batch, a part of it is timed; if it is too short for two images, the result
    is empty. The network and the random numbers that are drawn later stay as they are.
    """
    end = time.perf_counter() + seconds
    network = copy.deepcopy(sample.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(images: Tensor, precision: str) -> None:
        with autocast(CPU, precision):
            outputs = list(sample.outputs(network, images))
        torch.stack([x.float().square().mean() for x in outputs]).sum().backward()
        network.zero_grad(set_to_none=True)

    def draw(count: int) -> Tensor:
        return torch.randn(count, *sample.shape[1:]).contiguous(memory_format=torch.channels_last)

    batch = sample.shape[0]
    with torch.random.fork_rng(devices=[]):
        few = draw(min(2, batch))
        took = max(seconds_of(lambda: step(few, "fp32")), 1e-9)  # the slower precision, and its warm-up
        left = end - time.perf_counter()
        if left < 2 * took:
            return {}
        images = draw(min(max(int(len(few) * left / (8 * took)), 2), batch))  # a warm-up and three calls of each
        kinds = {kind: (lambda kind=kind: step(images, kind)) for kind in ("fp32", "bf16")}
        return {kind: len(images) / took for kind, took in race(kinds, left).items()}


def to_store(engine: Engine) -> dict[str, Any]:
    """The precision of ``engine`` with its reason, as a checkpoint keeps it for a resumed run."""
    return {"precision": engine.precision, "reason": engine.reason}


def with_stored_precision(engine: Engine, kept: Mapping[str, Any]) -> Engine:
    """``engine`` with the precision that :func:`to_store` gave; what earlier versions stored beside it is ignored."""
    return dataclasses.replace(engine, precision=kept["precision"], reason=kept["reason"])
