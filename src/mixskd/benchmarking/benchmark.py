"""Time the training step of an experiment in several variants, and report the figures."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
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

# Steps before the timing: they create the momentum, and on a GPU compile the step, choose convolutions and record it.
WARM_UP = {"cpu": 2, "cuda": 6}


def benchmark(
    experiment: Experiment,
    *,
    variants: str | None = None,
    rounds: int = 10,
    round_seconds: float = 0.3,
    loader_seconds: float = 3.0,
    startup: bool = True,
    after_round: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """Time the steps of ``experiment`` in several variants; ``benchmarks/README.md`` describes the report.

    ``variants`` are comma-separated names, all usual ones if None. In each of ``rounds`` each takes a turn of
    ``round_seconds`` or one step, whichever is longer. A variant whose step could not be compiled or recorded is
    reported as ``NAME_fallback`` with the reason in its notes. ``after_round`` is called with the report of the rounds
    so far, without the parts of the step and the loader, which are timed last. ``startup``: whether the start of the
    command line is timed. Raises UserError for an unknown name, or if a variant cannot run.
    """
    if rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {rounds}")
    device = choose_device(experiment.run.device)
    default, notes = engine_of(experiment, benchmark_data(experiment))
    known = variants_of(default, device.type)
    chosen, threads = choose(known, variants), torch.get_num_threads()
    # The parts are timed by hooks, which need an eager step; on a CPU the default step is eager.
    eager = next(name for name in ("eager", "without_compile", "without_graphs", "default") if name in known)
    with remotes(experiment, {**chosen, eager: known[eager]}, threads) as all_remotes:
        for remote in all_remotes.values():
            remote.ask("steps", WARM_UP[device.type])
        one, timed = all_remotes[eager], {name: all_remotes[name] for name in chosen}
        peaks = {name: remote.ask("peak_memory") for name, remote in timed.items()}  # before the large products
        flops = one.ask("flops")
        ceilings = {kind: one.ask("ceiling", kind) for kind in dict.fromkeys(("fp32", default.precision))}
        executed = {name: remote.ask("executed") for name, remote in timed.items()}
        batch = experiment.run.batch
        report: dict[str, Any] = {
            "command": " ".join(["mixskd", *sys.argv[1:]]),
            "experiment": to_dict(experiment),
            "machine": {"device": device_name(device), "cpus": os.cpu_count(), "threads": threads},
            "precision": default.precision,
            "precision_reason": default.reason,
            "flops_per_step": flops,
            "ceiling_flops": ceilings,
            **provenance(),
        }
        for seconds in _take_turns(timed, rounds, round_seconds):
            summaries: dict[str, dict[str, Any]] = {}
            for name, variant in chosen.items():
                engine, step_notes = executed[name]
                summary = _summary(variant, seconds[name], peaks[name], batch, flops, ceilings)
                summary["engine"] = {**dataclasses.asdict(engine), "keep_memory": variant.keep_memory}
                summary["notes"] = step_notes
                summaries[f"{name}_fallback" if step_notes else name] = summary
            for key, basis in (("speedup", "plain"), ("of_default", "default")):
                if basis in summaries:
                    for summary in summaries.values():
                        summary[key] = summary["images_per_second"] / summaries[basis]["images_per_second"]
            report = {
                **report,
                "notes": [*notes, *(f"{name}: {note}" for name, row in summaries.items() for note in row["notes"])],
                "rounds": len(seconds[name]),
                "variants": summaries,
            }
            after_round(report)
        parts = one.ask("parts", max(rounds, 5))
        data = one.ask("data_seconds", loader_seconds)
    loader = {"images_per_second": batch / data, "workers": experiment.data.workers}
    if "default" in summaries:
        loader["times_the_default_step"] = batch / data / summaries["default"]["images_per_second"]
    report = {
        **report,
        "parts_of_the_eager_step": {**parts, "data": data},
        "objective_share": (parts["objective forward"] + parts["objective backward"]) / parts["step"],
        "loader": loader,
    }
    return {**report, "startup_seconds": startup_seconds()} if startup else report


def _take_turns(timed: dict[str, Remote], rounds: int, round_seconds: float) -> Iterator[dict[str, list[float]]]:
    """After each round, the seconds per step of each variant in the rounds so far."""
    steps = {name: max(round(round_seconds / one.ask("steps", 1)), 1) for name, one in timed.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, one in timed.items():
            seconds[name].append(one.ask("steps", steps[name]))
        yield seconds


def _summary(
    variant: Variant, seconds: list[float], peak: int, batch: int, flops: int, ceilings: dict[str, float]
) -> dict[str, Any]:
    median = float(np.median(seconds))
    return {
        "about": variant.about,
        "images_per_second": batch / median,
        "step_seconds": median,
        "step_seconds_of_rounds": [*seconds],
        "flops_per_second": flops / median,
        "share_of_ceiling": {precision: flops / median / ceiling for precision, ceiling in ceilings.items()},
        "peak_memory_bytes": peak,
        "processes": variant.processes,
    }
