"""Data sets and how they reach the network."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.device_loader import DeviceLoader, DeviceTestLoader
from mixskd.data.holdout import first_per_class, hold_out, hold_out_fold
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import IMAGE_POLICIES, check_policy
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.arrays import load_digits, load_npz
from mixskd.data.sources.folder import load_folder, split_folders
from mixskd.data.sources.manifest import SUFFIXES, load_manifest
from mixskd.data.sources.named import NAMED, load_named
from mixskd.data.sources.shards import is_shards, load_shards
from mixskd.data.verify import verified, without_twins
from mixskd.data.worker_loader import WorkerLoader, WorkerTestLoader
from mixskd.errors import UserError, unknown
from mixskd.runtime.distributed import World, usable_cores

if TYPE_CHECKING:
    from mixskd.config import DataConfig

DATASETS: dict[str, str] = {
    "digits": "1,797 handwritten digits, embedded",
    **{name: named.about for name, named in NAMED.items()},
    "PATH.npz": "arrays train_images, train_labels, the same for val and test [, classes]",
    "FOLDER": "images as train/CLASS/* with val/ or test/ or both, or CLASS/* with a hold-out",
    "MANIFEST.csv": "one image a row: path, label, and optionally split and a group; .parquet as well",
    "SHARDS.tar": "WebDataset: train-{0000..0015}.tar, or a folder of train-*.tar with val-*.tar or test-*.tar",
}
PHOTO_SIZE = 224


def load_data(
    config: DataConfig,
    *,
    verify: bool = True,
    only: Sequence[str] = SPLITS,
    divided: bool = True,
    download: bool = True,
) -> DataBundle:
    """The data set that ``config.source`` names, or that is there: a folder, a manifest, an ``.npz`` file or shards.

    ``verify`` reads every file of the splits in ``only`` once. Where there is neither ``val`` nor ``test``, a share of
    each class is held out as ``test``, unless ``divided`` is off. With ``download`` off nothing is fetched. Raises
    UserError for anything that cannot be used.
    """
    data = _read(config, only, download)
    data = dataclasses.replace(data, splits=_grouped(data, config))
    if verify and config.source not in UNVERIFIED:
        data = _verified(data, config, only)
    if config.train_on_val:
        data = dataclasses.replace(data, splits=_with_val(data.splits))
    data = _divided(data, config, _unread(data, config)) if divided else data
    if "train" in data.splits:
        train, notes = without_twins(data.splits, config.duplicates)
        data = dataclasses.replace(data, splits={**data.splits, "train": train}, notes=(*data.notes, *notes))
    if config.flip is not None:
        data = dataclasses.replace(data, flip=config.flip)
    if config.per_class is not None and "train" in data.splits:
        few = data.train.subset(first_per_class(data.train.labels, config.per_class))
        data = dataclasses.replace(data, splits={**data.splits, "train": few})
    data.check()
    return data


UNVERIFIED = ("imagenet",)  # a million files: too long a start


def _read(config: DataConfig, only: Sequence[str], download: bool) -> DataBundle:
    path = Path(config.source).expanduser()
    size = config.image_size or PHOTO_SIZE
    if config.source in NAMED:
        return load_named(config.source, config.root, config.image_size, download=download)
    if config.source == "digits":
        data = load_digits()
    elif is_shards(config.source):
        return load_shards(config.source, size)
    elif path.is_dir():
        return load_folder(path, size, only)
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        return load_manifest(path, size, config.group)
    elif path.is_file() and path.suffix == ".npz":
        data = load_npz(path)
    elif path.is_file():
        raise UserError(f"{path} is neither a folder, an .npz file, nor a manifest ({' or '.join(SUFFIXES)})")
    elif len(path.parts) > 1 or path.suffix:
        raise UserError(f"there is no data at {path}; give an image folder, an .npz file, or a data set's name")
    else:
        raise unknown("data set", config.source, ["digits", *NAMED])
    if config.image_size not in (None, data.image_size):
        raise UserError(f"the images of {config.source} have {data.image_size} px; leave --data.image-size out")
    return data


def _grouped(data: DataBundle, config: DataConfig) -> dict[str, ImageSet]:
    """The splits with their groups, by a regular expression on the files' paths if they have none yet.

    Raises UserError for an expression that is none, or fits no path, and for a group in two splits.
    """
    splits = dict(data.splits)
    if config.group is None:
        return splits
    if any(split.groups is None for split in splits.values()):
        if any(split.in_memory for split in splits.values()):
            raise UserError("data.group needs files, whose paths it reads; leave it out for arrays")
        try:
            pattern = re.compile(config.group)
        except re.error as error:
            raise UserError(f"data.group {config.group!r} is not a regular expression: {error}") from None
        for name, split in splits.items():
            splits[name] = dataclasses.replace(split, groups=_groups(split, pattern, data.source))
    home: dict[str, str] = {}
    for name, split in splits.items():
        assert split.groups is not None
        for group in np.unique(split.groups):
            if home.setdefault(str(group), name) != name:
                raise UserError(f"the group {group!r} is in both {home[str(group)]} and {name}; move it to one side")
    return splits


def _groups(split: ImageSet, pattern: re.Pattern[str], source: Path | None) -> np.ndarray:
    names = []
    for image in split.images:
        text = (
            str(image if source is None else Path(image).relative_to(source)) if isinstance(image, Path) else str(image)
        )
        found = pattern.search(text)
        if found is None:
            raise UserError(f"data.group {pattern.pattern!r} does not fit the path {text}; it must fit every image")
        names.append(found.group(1) if pattern.groups else found.group())
    return np.asarray(names)


def _verified(data: DataBundle, config: DataConfig, only: Sequence[str]) -> DataBundle:
    files = {
        name: split
        for name, split in data.splits.items()
        if name in only and not split.in_memory and len(split) and isinstance(split.images[0], Path)
    }
    if not files:
        return data
    seen, notes = verified(files, skip_bad=config.skip_bad_images)
    return dataclasses.replace(data, splits={**data.splits, **seen}, notes=(*data.notes, *notes))


def _unread(data: DataBundle, config: DataConfig) -> set[str]:
    """The splits that the source has of its own, and that were not asked for."""
    path = Path(config.source).expanduser()
    return set(split_folders(path)) - set(data.splits) if path.is_dir() and not is_shards(config.source) else set()


def _divided(data: DataBundle, config: DataConfig, unread: set[str]) -> DataBundle:
    """``data`` with the hold-outs that it lacks, drawn by ``config.split_seed``; those in ``unread`` it has."""
    splits, drawn = dict(data.splits), False
    if "train" not in splits:
        return data
    own = set(splits) | unread
    fold = None if config.folds is None else "val" if config.val_holdout > 0 else "test"
    if fold in own:
        raise UserError(
            f"data.folds holds out a part of the training images as {fold}, but the data have a {fold} split of their "
            "own; leave data.folds out, or give a source without that split"
        )
    if fold != "test" and not {"val", "test"} & own:
        splits["train"], splits["test"] = hold_out(splits["train"], config.holdout, config.split_seed)
        drawn = True
    if fold is not None:
        assert config.folds is not None
        splits["train"], splits[fold] = hold_out_fold(splits["train"], config.folds, config.fold, config.split_seed)
        drawn = True
    elif "val" not in own and config.val_holdout > 0:
        splits["train"], splits["val"] = hold_out(splits["train"], config.val_holdout, config.split_seed)
        drawn = True
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return dataclasses.replace(data, splits=ordered, divided=data.divided or drawn)


def _with_val(splits: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """``splits`` with the images of ``val`` at the end of ``train``. Raises UserError if there is no ``test``."""
    if "test" not in splits:
        raise UserError("data.train_on_val needs a test split, since nothing else is left to score; leave it out")
    if "val" not in splits or "train" not in splits:
        return dict(splits)
    return {"train": splits["train"].joined(splits["val"]), "test": splits["test"]}


def worker_count(wanted: int | None) -> int:
    """``wanted``, or what the cores allow for each process of this machine: at most 16."""
    if wanted is not None:
        return wanted
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(usable_cores() // processes, 1), 16)


def shown_whole(images: ImageSet, preprocess: Preprocess) -> bool:
    """Whether the images are arrays that ``preprocess`` neither resizes nor crops."""
    size = preprocess.image_size
    return images.in_memory and preprocess.resize == "stretch" and np.asarray(images.images).shape[1:3] == (size, size)


def fits_device(images: ImageSet, device: torch.device) -> bool:
    """Whether arrays take less than half of the free memory of ``device`` (a GPU; the CPU holds them already)."""
    if device.type != "cuda":
        return True
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
) -> DeviceLoader | WorkerLoader:
    """Batches of ``batch_size`` training images in all processes together, with what ``needs`` asks for.

    Arrays are cropped, flipped and normalised on the device, where they fit there; all else comes from workers.
    ``deferred`` batches are finished within the step, so that a recorded step holds that work too.
    """
    needs, world = needs or DataNeeds(), world or World()
    plan = BatchPlan(data.train.labels, batch_size, seed, needs, world, balance=config.balance)
    check_policy(config.augment)
    on_single_images = config.augment in IMAGE_POLICIES or needs.view_policy is not None or config.color_jitter
    padded = config.crop_for(data.image_size) == "pad"
    if data.train.in_memory and padded and not on_single_images and fits_device(data.train, device):
        return DeviceLoader(data, plan, device, config.augment, deferred=deferred)
    return WorkerLoader(data, plan, device, config, worker_count(config.workers), deferred=deferred)


def make_test_loader(
    data: DataBundle,
    device: torch.device,
    *,
    split: str | None = None,
    workers: int | None = None,
    batch_size: int = 256,
    world: World | None = None,
) -> DeviceTestLoader | WorkerTestLoader:
    """Every image of this process's part of ``split`` (the one that each epoch is scored on, if None) once, in order.

    Raises UserError if the data have no such split.
    """
    name = split or data.scored
    if name not in data.splits:
        raise UserError(f"there is no split {name!r}; there are: {', '.join(data.splits)}")
    images = data.splits[name]
    if shown_whole(images, data.preprocess) and fits_device(images, device):
        return DeviceTestLoader(data, images, device, batch_size, world)
    return WorkerTestLoader(data, images, device, worker_count(workers), batch_size, world)


__all__ = [
    "DATASETS", "DataBundle", "ImageSet", "Preprocess", "load_data", "make_test_loader", "make_train_loader",
]  # fmt: skip
