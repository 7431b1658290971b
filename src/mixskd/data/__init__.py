"""Data sets and how they reach the network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import DeviceLoader, DeviceTestLoader
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import IMAGE_POLICIES, check_policy
from mixskd.data.sources.arrays import load_digits, load_npz
from mixskd.data.sources.folder import load_folder
from mixskd.data.sources.named import NAMED, load_named
from mixskd.data.sources.shards import is_shards, load_shards
from mixskd.data.split import first_per_class
from mixskd.data.worker_loader import WorkerLoader, WorkerTestLoader
from mixskd.distributed import World
from mixskd.errors import UserError, unknown
from mixskd.needs import DataNeeds

if TYPE_CHECKING:
    from mixskd.config import DataConfig

DATASETS: dict[str, str] = {
    "digits": "1,797 handwritten digits, embedded",
    **{name: named.about for name, named in NAMED.items()},
    "PATH.npz": "arrays train_images, train_labels, test_images, test_labels [, classes]",
    "FOLDER": "images as train/CLASS/* with val/ or test/, or CLASS/* with a hold-out",
    "SHARDS.tar": "WebDataset: train-{0000..0015}.tar, or a folder of train-*.tar with test-*.tar or val-*.tar",
}


def load_data(config: DataConfig, seed: int) -> DataBundle:
    """The data set that ``config.source`` names, or that lies there: an ``.npz`` file, an image folder or shards.

    ``seed`` decides a hold-out, where one is needed. Raises UserError for anything that cannot be used.
    """
    data = _read(config, seed)
    if config.flip is not None:
        data = dataclasses.replace(data, flip=config.flip)
    if config.per_class is not None:
        few = data.train.subset(first_per_class(data.train.labels, config.per_class))
        data = dataclasses.replace(data, train=few)
    return data


def _read(config: DataConfig, seed: int) -> DataBundle:
    path = Path(config.source).expanduser()
    if config.source in NAMED:
        return load_named(config.source, config.root, config.image_size)
    if config.source == "digits":
        data = load_digits(config.holdout, seed)
    elif is_shards(config.source):
        return load_shards(config.source, config.image_size or 224, config.holdout, seed)
    elif path.is_dir():
        return load_folder(path, config.image_size or 224, config.holdout, seed, skip_bad=config.skip_bad_images)
    elif path.is_file() and path.suffix == ".npz":
        data = load_npz(path, config.holdout, seed)
    elif path.is_file():
        raise UserError(f"{path} is neither a folder nor an .npz file")
    elif len(path.parts) > 1 or path.suffix:
        raise UserError(f"there is no data at {path}; give an image folder, an .npz file, or a data set's name")
    else:
        raise unknown("data set", config.source, ["digits", *NAMED])
    if config.image_size not in (None, data.image_size):
        raise UserError(f"the images of {config.source} have {data.image_size} px; leave --data.image-size out")
    return data


def make_train_loader(
    data: DataBundle,
    config: DataConfig,
    batch_size: int,
    device: torch.device,
    seed: int,
    needs: DataNeeds | None = None,
    world: World | None = None,
) -> DeviceLoader | WorkerLoader:
    """Batches of ``batch_size`` training images in all processes together, with what ``needs`` asks for."""
    needs, world = needs or DataNeeds(), world or World()
    plan = BatchPlan(data.train.labels, batch_size, seed, needs, world)
    check_policy(config.augment)
    on_single_images = config.augment in IMAGE_POLICIES or needs.view_policy is not None
    if data.train.in_memory and not on_single_images:
        return DeviceLoader(data, plan, device, config.augment)
    return WorkerLoader(data, plan, device, config.augment, config.workers)


def make_test_loader(
    data: DataBundle, device: torch.device, *, workers: int = 2, batch_size: int = 256, world: World | None = None
) -> DeviceTestLoader | WorkerTestLoader:
    """Every test image of this process's part once, in order."""
    if data.test.in_memory:
        return DeviceTestLoader(data, data.test, device, batch_size, world)
    return WorkerTestLoader(data, data.test, device, workers, batch_size, world)


__all__ = ["DATASETS", "DataBundle", "ImageSet", "load_data", "make_test_loader", "make_train_loader"]
