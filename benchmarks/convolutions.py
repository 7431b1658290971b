"""Both ways of a convolution on the CPU, the library's and one matrix product, for the layers of a ResNet-18.

python benchmarks/convolutions.py [--precision fp32] [--batch-size 128] [--out FILE.json]

For each layer and each of its parts (the output, and the gradients of images and weight) the ways take turns. The
figures are the fastest of the rounds, in ms, and GFLOP/s; ``limits`` is what a run would measure and keep.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from mixskd.runtime.precision import TYPES, device_name
from mixskd.training.convolution import USUAL
from mixskd.training.convolution_limits import PARTS, Shape, gain_of, measure_limits, ways
from mixskd.training.engine import configure_process
from mixskd.training.measurements import BUDGET, race
from mixskd.training.summary import provenance


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", default="fp32", choices=sorted(USUAL))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    configure_process(torch.device("cpu"), deterministic=False)
    batch, dtype = arguments.batch_size, TYPES[arguments.precision]
    layers = [Shape(batch, width, width, side) for width, side in ((64, 32), (128, 16), (256, 8), (512, 4))]
    layers += [Shape(batch, width // 2, width, side, 2) for width, side in ((128, 16), (256, 8), (512, 4))]
    found: list[dict[str, Any]] = []
    for layer in layers:
        flops = 2 * 9 * batch * layer.channels * layer.outputs * layer.side**2
        for part in PARTS:
            with torch.no_grad():
                seconds = race(ways(dtype, part, layer), float("inf"), arguments.rounds)
            row = {"channels": layer.channels, "outputs": layer.outputs, "side": layer.side, "stride": layer.stride}
            row |= {"part": part, "gain": round(seconds["library"] / seconds["product"], 2)}
            row |= {f"{way}_ms": round(1e3 * took, 1) for way, took in seconds.items()}
            row |= {f"{way}_gflops": round(flops / took / 1e9) for way, took in seconds.items()}
            found.append(row)
            print(row, flush=True)
    limits = measure_limits(lambda *shape: gain_of(arguments.precision, *shape), BUDGET, USUAL[arguments.precision])
    report = {
        "processor": device_name(torch.device("cpu")), "threads": torch.get_num_threads(),
        "precision": arguments.precision, "batch_size": batch, **provenance(),
        "limits": dataclasses.asdict(limits), "layers": found,
    }  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
