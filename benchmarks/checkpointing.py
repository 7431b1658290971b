"""Peak memory and time of a training step with and without run.checkpoint_activations.

Each variant runs in processes of its own. Memory is the growth of the peak of resident memory over the first two
steps, that is, of all that a step needs beside the weights. Steps take turns and are timed in seconds of CPU time, so
that other work on the machine matters less; the ratio is the median over the pairs.

    python benchmarks/checkpointing.py --out report.json --method mixskd --batch-size 4 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from dataclasses import replace
from multiprocessing.connection import Connection

from mixskd.benchmarking.variant_bench import Bench
from mixskd.benchmarking.variants import Variant
from mixskd.config import Experiment, to_dict
from mixskd.config.build import build_experiment
from mixskd.runtime.distributed import World
from mixskd.training.engine import Engine
from mixskd.training.summary import provenance


def serve(experiment: Experiment, engine: Engine, pipe: Connection) -> None:
    """Send the growth of the peak in bytes, then the CPU seconds of a step for each message."""
    bench = Bench(experiment, Variant("", engine, keep_memory=False), World())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.steps(2)
    pipe.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    while pipe.recv():
        start = time.process_time()
        bench.steps(1)
        pipe.send(time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, usual in (("backbone", "resnet50"), ("method", "baseline"), ("out", "checkpointing.json")):
        parser.add_argument(f"--{name}", default=usual)
    for name, number in (("batch-size", 8), ("image-size", 224), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    experiment = build_experiment({
        "backbone": given.backbone, "method": given.method, "run.batch_size": given.batch_size,
        "data": {"source": "synthetic", "image_size": given.image_size, "crop": "pad", "workers": 0},
    })  # fmt: skip
    plain = Engine(channels_last=True, fused=True)
    fresh, pipes, memory = multiprocessing.get_context("spawn"), [], []
    for engine in (plain, replace(plain, checkpoint=True)):
        here, there = fresh.Pipe()
        fresh.Process(target=serve, args=(experiment, engine, there), daemon=True).start()
        pipes.append(here)
        memory.append(here.recv())
    seconds: list[list[float]] = []
    for _ in range(given.rounds):
        seconds.append([])
        for pipe in pipes:
            pipe.send(True)
            seconds[-1].append(pipe.recv())
    for pipe in pipes:
        pipe.send(False)
    report = {
        "experiment": to_dict(experiment),
        "step_memory_bytes": dict(zip(("plain", "checkpointed"), memory, strict=True)),
        "memory_ratio": memory[1] / memory[0],
        "cpu_seconds_of_pairs": seconds,
        "time_ratio": statistics.median(after / before for before, after in seconds),
        **provenance(),
    }
    with open(given.out, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    print(f"memory x {report['memory_ratio']:.2f}, time x {report['time_ratio']:.2f}")


if __name__ == "__main__":
    main()
