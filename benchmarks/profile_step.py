"""What one default MixSKD step spends its time on, by operation, on the CPU: ``python benchmarks/profile_step.py``."""

from __future__ import annotations

import torch

from mixskd import MixSKD, build_backbone
from mixskd.config import OptimConfig, RunConfig
from mixskd.distributed import World
from mixskd.needs import Batch
from mixskd.training.engine import choose_engine, configure_process
from mixskd.training.step import build_step


def main(backbone: str = "cifar_resnet18", originals: int = 64, classes: int = 100) -> None:
    device = torch.device("cpu")
    configure_process(device, deterministic=False)
    engine, _ = choose_engine(RunConfig(), device, World())
    step = build_step(MixSKD(build_backbone(backbone, classes)), OptimConfig(), device, engine)
    images = torch.randn(originals, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    batch = Batch(images, torch.randint(classes, (originals,)), {})
    for i in range(2):
        step(batch, 0.1, i)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(batch, 0.1, 2)
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=48))


if __name__ == "__main__":
    main()
