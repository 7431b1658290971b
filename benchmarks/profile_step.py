"""What a step spends its time on, on the CPU: the parts of ``plain`` and ``default``, the operations of ``default``.

python benchmarks/profile_step.py [--backbone wrn_16_2] [--out FILE.json]

The parts are seconds of this process on the processor, not of the wall's clock, so that other work on the machine
counts little; the two variants take turns, one step at a time. With several threads the seconds of all are added.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixskd.benchmarking.timing import StepTimer
from mixskd.benchmarking.variant_bench import benchmark_data
from mixskd.config import Experiment, OptimConfig
from mixskd.config.build import build_experiment
from mixskd.data.batch import Batch
from mixskd.runtime.precision import device_name
from mixskd.training.classification import build_method
from mixskd.training.engine import Engine, configure_process
from mixskd.training.factory import engine_of
from mixskd.training.step import TrainStep, build_step
from mixskd.training.summary import provenance

CPU, CLASSES = torch.device("cpu"), 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="cifar_resnet18")
    parser.add_argument("--batch-size", type=int, default=64, help="originals")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    configure_process(CPU, deterministic=False)
    experiment = build_experiment(
        {
            "backbone": arguments.backbone, "method": {"name": "mixskd"}, "data": {"source": "synthetic"},
            "run": {"batch_size": arguments.batch_size, "precision": arguments.precision, "device": "cpu"},
        }
    )  # fmt: skip
    engines = {"plain": Engine(), "default": engine_of(experiment, benchmark_data(experiment))[0]}
    steps = {name: Steps(experiment, engine) for name, engine in engines.items()}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for number in range(2 + arguments.rounds):
        for name, step in steps.items():
            row = step.parts()
            if number >= 2:  # before that the momentum comes into being, and memory is kept
                rows[name].append(row)
    variants: dict[str, Any] = {}
    for name, found in rows.items():
        parts = {part: float(np.median([row[part] for row in found])) for part in found[0]}
        objective = [(row["objective forward"] + row["objective backward"]) / row["step"] for row in found]
        variants[name] = {
            "engine": dataclasses.asdict(engines[name]), "cpu_seconds": parts,
            "objective_share": float(np.median(objective)), "step_of_rounds": [row["step"] for row in found],
        }  # fmt: skip
        print(name, {part: round(seconds, 4) for part, seconds in parts.items()}, f"{np.median(objective):.3f}")
    ratio = variants["plain"]["cpu_seconds"]["step"] / variants["default"]["cpu_seconds"]["step"]
    print(f"default against plain: {ratio:.2f}x")
    report = {
        "command": " ".join(["python benchmarks/profile_step.py", *sys.argv[1:]]), "clock": "time.process_time",
        "machine": device_name(CPU), "rounds": arguments.rounds, "batch_size": arguments.batch_size,
        "variants": variants, "speedup": ratio, **provenance(),
    }  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        steps["default"].one()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=48))


class Steps:
    """Steps of ``experiment`` by ``engine`` on one batch of random images."""

    def __init__(self, experiment: Experiment, engine: Engine) -> None:
        originals = experiment.run.batch_size
        method, _ = build_method(experiment, CLASSES, 32, originals)
        self.step: TrainStep = build_step(method, OptimConfig(), CPU, engine)
        layout = torch.channels_last if engine.channels_last else torch.contiguous_format
        images = torch.randn(originals, 3, 32, 32).contiguous(memory_format=layout)
        self.batch, self.count = Batch(images, torch.randint(CLASSES, (originals,)), {}), 0

    def one(self) -> None:
        self.step(self.batch, 0.01, self.count)
        self.count += 1

    def parts(self) -> dict[str, float]:
        return StepTimer(self.step, CPU, time.process_time).measure(self.one, 1)


if __name__ == "__main__":
    main()
