"""Read a data set of any source: find its splits, verify its files, hold out images, leave duplicates out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.duplicates import without_duplicates
from mixskd.data.holdout import first_per_class, hold_out, hold_out_fold
from mixskd.data.labels import strata
from mixskd.data.preprocess import Preprocess, for_channels
from mixskd.data.sources.arrays import load_digits, load_npz
from mixskd.data.sources.folder import load_folder, split_folders
from mixskd.data.sources.hub import HUB, load_hub
from mixskd.data.sources.manifest import SUFFIXES, load_manifest
from mixskd.data.sources.named import NAMED, load_named
from mixskd.data.sources.shards import is_shards, load_shards
from mixskd.data.splits_file import names_of
from mixskd.data.verify import verified
from mixskd.errors import UserError, nearest

if TYPE_CHECKING:
    from mixskd.config import DataConfig

DATASETS: dict[str, str] = {
    "digits": "1,797 handwritten digits, embedded",
    **{name: named.about for name, named in NAMED.items()},
    "PATH.npz": "arrays train_images, train_labels (N, or N x C), the same for val and test [, classes]",
    "FOLDER": "images as train/CLASS/* with val/ or test/ or both, or CLASS/* with a hold-out",
    "MANIFEST.csv": "one image a row: path, label (or labels: a;b), and optionally split and a group; .parquet as well",
    "hf:FOLDER": "what save_to_disk of datasets wrote, or a repository of parquet or image files",
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
    """The data set ``config.source``: a name, or the path of a folder, a manifest, an ``.npz`` file or shards.

    ``verify`` verifies the files of the splits in ``only``, as ``config.verify`` says. If the source has neither
    ``val`` nor ``test``, a share of each class is held out as ``test``, unless ``divided`` is False. Without
    ``download`` only local files are used. Raises UserError for data that cannot be used.
    """
    data = _read(config, only, download)
    form = config.channels, np.uint8 if config.range is None else np.float32
    for images in (np.asarray(split.images) for split in data.splits.values() if split.in_memory):
        if (images.shape[3], images.dtype) != form:
            raise UserError(f"{config.source} has RGB images of 8 bits; leave data.channels and data.range out")
    splits, notes, drawn = dict(data.splits), list(data.notes), data.divided
    if config.group is not None:
        splits = {name: _with_groups(split, config.group, data.source) for name, split in splits.items()}
        _check_groups(splits)
    if verify and config.verify != "off":
        files = {name: split for name, split in splits.items() if name in only and len(split) and not split.in_memory}
        good, verify_notes = verified(
            files, skip_bad=config.skip_bad_images, mode=config.verify, max_pixels=config.max_pixels,
            wanted=_preprocess(data, config),
        )  # fmt: skip
        splits.update(good)
        notes += verify_notes
    if config.train_on_val:
        splits = _with_val(splits)
    if divided and "train" in splits:
        given = set(splits)
        splits = _with_held_out(splits, config, data.classes)
        drawn |= splits.keys() != given
    if "train" in splits:
        splits["train"], duplicate_notes = without_duplicates(splits, config.duplicates)
        notes += duplicate_notes
        if config.per_class is not None:
            splits["train"] = splits["train"].subset(first_per_class(strata(splits["train"].labels), config.per_class))
    data = dataclasses.replace(
        data, splits=splits, notes=tuple(notes), divided=drawn, max_pixels=config.max_pixels,
        flip=data.flip if config.flip is None else config.flip,
        preprocess=_preprocess(data, config), train_size=data.image_size,
    )  # fmt: skip
    data.check()
    return data


def _preprocess(data: DataBundle, config: DataConfig) -> Preprocess:
    """How images are scored: that of the source, with the size and the resize rule of ``config``.

    Raises UserError if ``scale_schedule`` does not end at the size of the training images.
    """
    size, schedule = data.image_size, config.scale_schedule
    if schedule and schedule[-1] != size:
        raise UserError(
            f"data.scale_schedule ends at {schedule[-1]} px, but data.image_size is {size}; let both be the same"
        )
    p, channels = data.preprocess, config.channels
    return Preprocess(
        config.eval_size or size, for_channels(p.mean, channels), for_channels(p.std, channels),
        p.resize if config.resize == "auto" else config.resize, config.range,
    )  # fmt: skip


def _with_held_out(splits: Mapping[str, ImageSet], config: DataConfig, classes: Sequence[str]) -> dict[str, ImageSet]:
    """``splits`` with the parts of ``train`` that ``config`` holds out as ``test`` or ``val``, in the usual order.

    Raises UserError for ``data.folds`` where the source has that split.
    """
    splits, seed, path = dict(splits), config.split_seed, Path(config.source).expanduser()
    folders = set(split_folders(path)) if path.is_dir() and not is_shards(config.source) else set()
    known = set(splits) | folders  # a split of the source that was not read is not drawn either
    fold = None if config.folds is None else "val" if config.val_holdout > 0 else "test"
    if fold in known:
        raise UserError(
            f"data.folds holds out a part of the training images as {fold}, but the data have a {fold} split of "
            "their own; leave data.folds out, or give a source without that split"
        )
    if fold != "test" and not {"val", "test"} & known:
        splits["train"], splits["test"] = hold_out(splits["train"], config.holdout, seed, classes)
    if config.folds is not None and fold is not None:
        splits["train"], splits[fold] = hold_out_fold(splits["train"], config.folds, config.fold, seed, classes)
    elif "val" not in known and config.val_holdout > 0:
        splits["train"], splits["val"] = hold_out(splits["train"], config.val_holdout, seed, classes)
    return {name: splits[name] for name in SPLITS if name in splits}


def _with_val(splits: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """``splits`` with the images of ``val`` at the end of ``train``. Raises UserError if there is no ``test``."""
    if "test" not in splits:
        raise UserError("data.train_on_val needs a test split, since nothing else is left to score; leave it out")
    if "val" not in splits or "train" not in splits:
        return dict(splits)
    return {"train": splits["train"].joined(splits["val"]), "test": splits["test"]}


def _read(config: DataConfig, only: Sequence[str], download: bool) -> DataBundle:
    """The data set as its source holds it."""
    path = Path(config.source).expanduser()
    size = config.image_size or PHOTO_SIZE
    if config.source in NAMED:
        return load_named(config.source, config.root, config.image_size, download=download)
    if config.source == "digits":
        data = load_digits(config.channels)
    elif config.source.startswith(HUB):
        return load_hub(config.source, size, columns=config.columns, split_names=config.split_names, group=config.group)
    elif is_shards(config.source):
        return load_shards(config.source, size)
    elif path.is_dir():
        return load_folder(path, size, only)
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        return load_manifest(path, size, config.group, config.columns)
    elif path.is_file() and path.suffix == ".npz":
        data = load_npz(path, config.channels, config.range)
    elif path.is_file():
        raise UserError(f"{path} is neither a folder, an .npz file, nor a manifest ({' or '.join(SUFFIXES)})")
    else:
        raise _missing(path)
    if config.image_size not in (None, data.image_size):
        raise UserError(f"the images of {config.source} have {data.image_size} px; leave --data.image-size out")
    return data


def may_have_several(source: str) -> bool:
    """Whether images of this kind of ``source`` can have several labels; only reading it tells whether they do."""
    return source.startswith(HUB) or source.endswith((*SUFFIXES, ".npz"))


def _missing(path: Path) -> UserError:
    """The error for a source that is neither here nor the name of a data set."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    usable = [str(one) for one in beside if one.is_dir() or one.suffix.lower() in (*SUFFIXES, ".npz")]
    named = [] if len(path.parts) > 1 or path.suffix else ["digits", *NAMED]
    hint = nearest(str(path), [*usable, *named])
    what = f"there is no folder {path}, and no data set has that name" if named else f"there is no data at {path}"
    others = f"; data sets: {', '.join(named)}" if named else ""
    give = "" if hint else f"; give an image folder, a manifest, an .npz file, or a data set's name{others}"
    return UserError(f"{what}{hint or give}")


def _with_groups(split: ImageSet, expression: str, source: Path | None) -> ImageSet:
    """``split`` with its groups: its own, or what the regular ``expression`` finds in the paths under ``source``.

    Raises UserError for arrays, for an invalid expression, and for a path that it does not match.
    """
    if split.groups is not None:
        return split
    if split.in_memory:
        raise UserError("data.group needs files, whose paths it reads; leave it out for arrays")
    try:
        pattern = re.compile(expression)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise UserError(f"data.group {expression!r} is not a regular expression: {error}") from None
    names = []
    for text in names_of(split, source):
        found = pattern.search(text)
        if found is None:
            raise UserError(f"data.group {expression!r} does not fit the path {text}; it must fit every image")
        names.append(found.group(1) if pattern.groups else found.group())
    return dataclasses.replace(split, groups=np.asarray(names))


def _check_groups(splits: dict[str, ImageSet]) -> None:
    """Raises UserError for a group in two splits."""
    home: dict[str, str] = {}
    for name, split in splits.items():
        for group in map(str, np.unique(split.groups)):  # type: ignore[arg-type]
            if home.setdefault(group, name) != name:
                raise UserError(f"the group {group!r} is in both {home[group]} and {name}; move it to one side")
