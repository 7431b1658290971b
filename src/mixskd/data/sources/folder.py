"""Image folders: ``train/CLASS/*`` with ``val/`` or ``test/`` or both, or ``CLASS/*`` alone.

A folder with ``val/`` or ``test/`` and nothing else can be evaluated.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileListBuilder
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError

# What the folder of a split may be called.
NAMES = {"train": ("train",), "val": ("val", "valid", "validation", "dev"), "test": ("test",)}


def load_folder(path: Path, image_size: int, only: Iterable[str] | None = None) -> DataBundle:
    """The files under ``path`` by split; a folder without ``train/`` is one split, which is called ``train``.

    ``only`` names the splits that are wanted. Raises UserError for an empty class, one class only, a class that train
    lacks, or two folders for one split.
    """
    homes = split_folders(path)
    if not homes:
        classes, images = scan(path)
        return DataBundle({"train": images}, classes, Preprocess(image_size), source=path)
    classes = class_names(homes["train"] if "train" in homes else next(iter(homes.values())))
    wanted = [name for name in homes if only is None or name in only]
    splits = {name: scan(homes[name], classes)[1] for name in wanted}
    return DataBundle(splits, classes, Preprocess(image_size), source=path)


def split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split under ``path``; empty if there is no ``train/``, and not only splits.

    Raises UserError for two folders of one split.
    """
    if not (path / "train").is_dir() and not holds_only_splits(path):
        return {}
    homes: dict[str, Path] = {}
    for split, names in NAMES.items():
        found = [path / name for name in names if (path / name).is_dir()]
        if len(found) > 1:
            raise UserError(f"{path} has both {found[0].name}/ and {found[1].name}/; keep one of them")
        if found:
            homes[split] = found[0]
    return homes


def holds_only_splits(path: Path) -> bool:
    """Whether each folder under ``path``, of one or more, is called as a split and holds folders of classes."""
    known = {name for names in NAMES.values() for name in names}
    found = folders(path)
    return bool(found) and set(found) <= known and all(folders(path / name) for name in found)


def class_names(path: Path) -> tuple[str, ...]:
    """The class folders under ``path``, sorted. Raises UserError if there are fewer than two."""
    found = folders(path)
    if len(found) < 2:
        raise UserError(f"{path} needs two class folders or more with images in them; it has {len(found)}")
    return found


def folders(path: Path) -> tuple[str, ...]:
    """The folders under ``path`` by name, sorted, hidden ones left out."""
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def scan(path: Path, classes: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], ImageSet]:
    """Classes and files of the class folders under ``path``; with ``classes`` given, no others may be there."""
    found = folders(path)
    if classes is None:
        classes = class_names(path)
    elif strange := sorted(set(found) - set(classes)):
        raise UserError(f"{path} has classes that the training images lack: {', '.join(strange[:5])}")
    files, labels = FileListBuilder(), []
    for name in found:
        before = len(files)
        for folder, names in images_under(f"{path / name}/"):
            files.add(folder, names)
        if len(files) == before:
            raise UserError(f"the class folder {path / name} holds no image; add some or remove the folder")
        labels.append(np.full(len(files) - before, classes.index(name)))
    return classes, ImageSet(files.build(), np.concatenate(labels))


def images_under(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The images in ``folder`` (which ends with ``/``) and in the folders under it, as (folder, names).

    They come in the order of their paths' parts. Links to folders are not followed.
    """
    names: list[str] = []
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image(entry):
                    names.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
    except PermissionError:
        pass
    if not folders:
        yield folder, sorted(names)
        return
    for is_folder, group in groupby(sorted([*names, *folders]), folders.__contains__):
        if is_folder:
            for name in group:
                yield from images_under(f"{folder}{name}/")
        else:
            yield folder, list(group)


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether the name of ``entry`` ends as an image's, and it is a file or a link to one."""
    try:
        return entry.name[1:].lower().endswith(EXTENSIONS) and entry.is_file()  # the first dot may hide a file
    except OSError:  # a link to itself
        return False
