"""``run.batch_size auto``: the batch that the memory of the device can hold."""

import gc
from dataclasses import replace

import torch

from mixskd.config import Experiment
from mixskd.config.registry import NETWORKS
from mixskd.data import DataBundle, load_data
from mixskd.errors import UserError
from mixskd.errors.faults import is_out_of_memory
from mixskd.runtime.distributed import World
from mixskd.training.factory import build_parts

FIRST = 64


def fitting_batch(experiment: Experiment, world: World) -> int:
    """The largest of 64, 32, 16 ... images an update of which all processes can take two steps.

    Each process tries its part of the batch alone, without compiling or recording the step. Raises UserError if not
    even one image for each part of a process fits.
    """
    data = None if experiment.method.name in NETWORKS else load_data(experiment.data)
    size, smallest = FIRST, world.size * experiment.run.accumulate
    while size >= smallest:
        few = data is not None and size > len(data.train)
        if not few and world.highest(0 if fits(experiment, size // world.size, data) else 1) == 0:
            return size
        size //= 2
    raise UserError("run.batch_size auto found no batch that fits the memory; take a smaller --data.image-size, "
                    "a smaller network, or --run.checkpoint-activations")  # fmt: skip


def fits(experiment: Experiment, size: int, data: DataBundle | None) -> bool:
    """Whether this process can take two steps of ``size`` images; the second has the optimizer's momentum too."""
    run = replace(experiment.run, batch_size=size, compile="never", cuda_graphs="never")
    try:
        parts = build_parts(replace(experiment, run=run), data=data)
        batch = next(iter(parts.loader.epoch(0)))
        for seed in range(2):
            parts.step(batch, lr=0.0, seed=seed)
    except Exception as error:
        if not is_out_of_memory(error.__cause__ or error):
            raise
        return False
    finally:
        batch = parts = None  # type: ignore[assignment]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return True
