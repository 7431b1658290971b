"""The released code's own training step in turn with ours.

python benchmarks/released_step.py CHECKOUT [--out FILE.json], where CHECKOUT is a clone of
github.com/winycg/Self-KD-Lib. Its CIFAR script parses arguments and loads data when imported, so its functions are
taken from the file as they stand, and given what the script would have given them: the ResNet-18 of
models/resnet_mixskd.py, its losses, SGD, and batches of 64 images in host memory.
"""

from __future__ import annotations

import argparse
import ast
import bisect
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mixskd.benchmarking.process import remotes
from mixskd.benchmarking.variant_bench import benchmark_data
from mixskd.benchmarking.variants import variants_of
from mixskd.config.build import build_experiment
from mixskd.runtime.precision import choose_device
from mixskd.training.factory import engine_of

FUNCTIONS = ("mixup_data", "mixup_criterion", "train")


class Batches:
    """``number`` batches of random images; the time at which each is asked for is the end of the step before."""

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.images, self.labels = torch.randn(size, 3, 32, 32), torch.randint(100, (size,))
        self.times: list[float] = []

    def __len__(self) -> int:
        return 782

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(self.number):
            self.times.append(time.perf_counter())
            yield self.images, self.labels
        self.times.append(time.perf_counter())


class Released:
    """The network, losses and optimizer of the checkout, and its ``train``."""

    def __init__(self, checkout: Path, batch_size: int) -> None:
        sys.path.insert(0, str(checkout))
        if not torch.cuda.is_available():  # it says .cuda() everywhere
            torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign,assignment]
            nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign,assignment]
        import methods
        import models
        import utils

        torch.backends.cudnn.benchmark = True
        net = nn.DataParallel(models.MixSKD_CIFAR_ResNet18(num_classes=100).cuda())
        self.batches = Batches(1, batch_size)
        self.names: dict[str, Any] = {
            "np": np, "torch": torch, "nn": nn, "F": F, "time": time, "os": os, "bisect_right": bisect.bisect_right,
            "net": net, "trainloader": self.batches, "num_stage": 4, "log_txt": os.devnull,
            "args": SimpleNamespace(mixup_alpha=0.4, warmup_epoch=5, init_lr=0.001, lr_type="multistep",
                                    milestones=[100, 150], epochs=205),
            **{name: getattr(utils, name) for name in utils.__all__},
        }  # fmt: skip
        source = (checkout / "main_mixskd_cifar.py").read_text()
        found = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef) and f.name in FUNCTIONS]
        exec(compile(ast.Module(found, []), "main_mixskd_cifar.py", "exec"), self.names)
        discriminators = methods.discriminatorLoss([512] * 4).cuda()
        self.losses = nn.ModuleList([nn.CrossEntropyLoss(), utils.DistillKL(3), discriminators]).cuda()
        trained = nn.ModuleList([net, discriminators])
        self.optimizer = torch.optim.SGD(trained.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def steps(self, number: int) -> float:
        """Seconds a step over ``number`` of them; it reads its losses back in each, so the host's clock tells."""
        self.batches.number, self.batches.times = number, []
        with contextlib.redirect_stdout(io.StringIO()):
            self.names["train"](10, self.losses, self.optimizer)
        return (self.batches.times[-1] - self.batches.times[0]) / number


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20 if torch.cuda.is_available() else 1, help="in each turn")
    parser.add_argument("--variants", default="plain,default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    experiment = build_experiment(
        {
            "backbone": "cifar_resnet18", "method": {"name": "mixskd"}, "data": {"source": "synthetic"},
            "run": {"batch_size": arguments.batch_size},
        }
    )  # fmt: skip
    device = choose_device("auto")
    known = variants_of(engine_of(experiment, benchmark_data(experiment))[0], device.type)
    chosen = {name: known[name] for name in arguments.variants.split(",")}
    peak = 0
    with remotes(experiment, chosen, torch.get_num_threads()) as ours:
        ways: dict[str, Any] = {name: lambda n, one=one: one.ask("steps", n) for name, one in ours.items()}
        released = Released(arguments.checkout, arguments.batch_size)
        ways["released"] = released.steps
        for step in ways.values():
            step(5)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, step in ways.items():
                seconds[name].append(step(arguments.steps))
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    report = {
        "command": f"python benchmarks/released_step.py CHECKOUT --rounds {arguments.rounds} --steps {arguments.steps}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "variants": {
            name: {
                "step_seconds": median,
                "images_per_second": arguments.batch_size / median,
                "speedup": medians["released"] / median,
                "step_seconds_of_rounds": seconds[name],
            }
            for name, median in medians.items()
        },
        "peak_memory_bytes_released": peak,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
