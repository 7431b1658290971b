"""A benchmark from the first process to the report."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import numpy as np
import torch

from mixskd.benchmarking.process import Remote, remotes
from mixskd.benchmarking.startup import startup_seconds
from mixskd.benchmarking.variant_bench import benchmark_data
from mixskd.benchmarking.variants import Variant, choose, variants_of
from mixskd.config import Experiment, to_dict
from mixskd.errors import UserError
from mixskd.runtime.precision import choose_device, device_name
from mixskd.training.factory import engine_of
from mixskd.training.summary import provenance

# Steps until the momentum is there and the memory is kept; on a GPU also code, convolutions and a graph.
WARM_UP = {"cpu": 2, "cuda": 6}


def benchmark(
    experiment: Experiment,
    *,
    variants: str | None = None,
    rounds: int = 10,
    round_seconds: float = 0.3,
    loader_seconds: float = 3.0,
) -> dict[str, Any]:
    """Time the steps of ``experiment`` in several ways; the report is described in ``benchmarks/README.md``.

    ``variants`` are comma-separated names, all usual ones if None. In each of ``rounds`` each takes a turn of
    ``round_seconds`` or one step, whichever is longer. Raises UserError for an unknown name, or what cannot run.
    """
    if rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {rounds}")
    device = choose_device(experiment.run.device)
    default, notes = engine_of(experiment, benchmark_data(experiment))
    known = variants_of(default, device.type)
    chosen, threads = choose(known, variants), torch.get_num_threads()
    # Hooks see into an eager step only, which on a CPU is the default one.
    eager = next(name for name in ("eager", "without_compile", "without_graphs", "default") if name in known)
    with remotes(experiment, {**chosen, eager: known[eager]}, threads) as all_remotes:
        for remote in all_remotes.values():
            remote.ask("steps", WARM_UP[device.type])
        seconds, peaks = _take_turns({name: all_remotes[name] for name in chosen}, rounds, round_seconds)
        one = all_remotes[eager]
        ceilings = {kind: one.ask("ceiling", kind) for kind in dict.fromkeys(("fp32", default.precision))}
        parts = one.ask("parts", max(rounds, 5))
        data = one.ask("data_seconds", loader_seconds)
        flops = one.ask("flops")
    batch = experiment.run.batch_size
    report: dict[str, Any] = {
        "command": " ".join(["mixskd", *sys.argv[1:]]),
        "experiment": to_dict(experiment),
        "machine": {"device": device_name(device), "cpus": os.cpu_count(), "threads": threads},
        "precision": default.precision,
        "precision_reason": default.reason,
        "notes": notes,
        "rounds": rounds,
        "flops_per_step": flops,
        "ceiling_flops": ceilings,
        "variants": {
            name: _summary(chosen[name], seconds[name], peaks[name], batch, flops, ceilings) for name in chosen
        },
        "parts_of_the_eager_step": {**parts, "data": data},
        "objective_share": (parts["objective forward"] + parts["objective backward"]) / parts["step"],
        "loader": {"images_per_second": batch / data, "workers": experiment.data.workers},
        "startup_seconds": startup_seconds(),
        **provenance(),
    }
    summaries = report["variants"]
    for summary in summaries.values():
        if "plain" in summaries:
            summary["speedup"] = summary["images_per_second"] / summaries["plain"]["images_per_second"]
        if "default" in summaries:
            summary["of_default"] = summary["images_per_second"] / summaries["default"]["images_per_second"]
    if "default" in summaries:
        report["loader"]["times_the_default_step"] = batch / data / summaries["default"]["images_per_second"]
    return report


def _take_turns(
    ready: dict[str, Remote], rounds: int, round_seconds: float
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds a step in each round, and the peak memory of each."""
    steps = {}
    for name, one in ready.items():
        steps[name] = max(round(round_seconds / one.ask("steps", 1)), 1)
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, one in ready.items():
            seconds[name].append(one.ask("steps", steps[name]))
    return seconds, {name: one.ask("peak_memory") for name, one in ready.items()}


def _summary(
    variant: Variant, seconds: list[float], peak: int, batch: int, flops: int, ceilings: dict[str, float]
) -> dict[str, Any]:
    median = float(np.median(seconds))
    return {
        "about": variant.about,
        "images_per_second": batch / median,
        "step_seconds": median,
        "step_seconds_of_rounds": seconds,
        "flops_per_second": flops / median,
        "share_of_ceiling": {precision: flops / median / ceiling for precision, ceiling in ceilings.items()},
        "peak_memory_bytes": peak,
        "engine": {**dataclasses.asdict(variant.engine), "keep_memory": variant.keep_memory},
        "processes": variant.processes,
    }
