"""Choose the loader of a split: on the device for arrays that fit there, else worker processes."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import DeviceLoader, DeviceTestLoader
from mixskd.data.labels import hardened, strata
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import IMAGE_POLICIES, check_policy
from mixskd.data.worker_loader import WorkerLoader, WorkerTestLoader
from mixskd.errors import UserError
from mixskd.runtime.distributed import World, usable_cores

if TYPE_CHECKING:
    from mixskd.config import DataConfig


def worker_count(wanted: int | None) -> int:
    """``wanted``, or by default the cores of this machine divided by its processes, from 1 to 16."""
    if wanted is not None:
        return wanted
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(usable_cores() // processes, 1), 16)


def fits_device(images: ImageSet, device: torch.device) -> bool:
    """Whether the images are arrays that take less than half of the free memory of a GPU, or are used on the CPU."""
    if not images.in_memory or device.type != "cuda":
        return images.in_memory
    free, _ = torch.cuda.mem_get_info(device)
    return np.asarray(images.images).nbytes < free / 2


def make_train_loader(
    data: DataBundle,
    config: DataConfig,
    batch_size: int,
    device: torch.device,
    seed: int,
    needs: DataNeeds | None = None,
    world: World | None = None,
    *,
    deferred: bool = False,
    epochs: int = 1,
) -> DeviceLoader | WorkerLoader:
    """Batches of ``batch_size`` training images in all processes together, with the tensors that ``needs`` names.

    ``epochs`` are those of the run, into which ``data.scale_schedule`` is divided. ``deferred`` batches are made within
    the step, so that a CUDA graph records that work too.
    """
    needs, world = needs or DataNeeds(), world or World()
    if data.several and config.balance > 0:
        raise UserError("data.balance draws by class, but an image may have several; set optim.class_weights instead")
    plan = BatchPlan(strata(data.train.labels), batch_size, seed, needs, world, balance=config.balance)
    check_policy(config.augment, config.color_jitter, needs.view_policy, data.preprocess)
    size_in = partial(config.size_in, epochs=epochs, image_size=data.image_size)
    on_single_images = config.augment in IMAGE_POLICIES or needs.view_policy is not None or config.color_jitter
    if config.crop_for(data.image_size) == "pad" and not on_single_images and fits_device(data.train, device):
        return DeviceLoader(data, plan, device, config.augment, deferred=deferred, size_in=size_in)
    return WorkerLoader(data, plan, device, config, worker_count(config.workers), deferred=deferred, size_in=size_in)


def make_test_loader(
    data: DataBundle,
    device: torch.device,
    *,
    split: str | None = None,
    workers: int | None = None,
    batch_size: int = 256,
    world: World | None = None,
) -> DeviceTestLoader | WorkerTestLoader:
    """Every image of this process's part of ``split`` once, in order. The default is the split that scores each epoch.

    Raises UserError if the data have no such split.
    """
    name, world = split or data.scored, world or World()
    if name not in data.splits:
        raise UserError(f"there is no split {name!r}; there are: {', '.join(data.splits)}")
    images = data.splits[name]
    images = dataclasses.replace(images, labels=hardened(images.labels))
    if fits_device(images, device) and data.preprocess.keeps(np.asarray(images.images)):
        return DeviceTestLoader(data, images, device, batch_size, world)
    return WorkerTestLoader(data, images, device, batch_size, world, worker_count(workers))
