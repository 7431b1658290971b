"""Time the start of the command line, and the training step of an experiment in several variants."""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixskd.benchmarking.process import Remote, remotes
from mixskd.benchmarking.variant_bench import benchmark_data
from mixskd.benchmarking.variants import choose, variants_of
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
        for done, seconds in enumerate(_take_turns(timed, rounds, round_seconds), start=1):
            summaries: dict[str, dict[str, Any]] = {}
            for name, variant in chosen.items():
                (engine, step_notes), median = executed[name], float(np.median(seconds[name]))
                summaries[f"{name}_fallback" if step_notes else name] = {
                    "about": variant.about,
                    "images_per_second": batch / median,
                    "step_seconds": median,
                    "step_seconds_of_rounds": [*seconds[name]],
                    "flops_per_second": flops / median,
                    "share_of_ceiling": {kind: flops / median / ceiling for kind, ceiling in ceilings.items()},
                    "peak_memory_bytes": peaks[name],
                    "processes": variant.processes,
                    "engine": {**dataclasses.asdict(engine), "keep_memory": variant.keep_memory},
                    "notes": step_notes,
                }
            for key, basis in (("speedup", "plain"), ("of_default", "default")):
                if basis in summaries:
                    for summary in summaries.values():
                        summary[key] = summary["images_per_second"] / summaries[basis]["images_per_second"]
            report = {
                **report,
                "notes": [*notes, *(f"{name}: {note}" for name, row in summaries.items() for note in row["notes"])],
                "rounds": done,
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


def startup_seconds() -> dict[str, float]:
    """Seconds of ``mixskd --help``, and until the first step of a run on the digits is done and saved."""
    mixskd = [sys.executable, "-m", "mixskd"]
    start = time.perf_counter()
    subprocess.run([*mixskd, "--help"], check=True, stdout=subprocess.DEVNULL)
    help_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = ["train", "digits", "--run.checkpoint-every-steps", "1", "--run.progress", "false", "--out", str(out)]
        start = time.perf_counter()
        with subprocess.Popen([*mixskd, *run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (out / "checkpoint.pt").exists():
                time.sleep(0.01)
            first_step = time.perf_counter() - start
            process.kill()
    return {"help": help_seconds, "first_step": first_step}
