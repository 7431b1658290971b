"""Image folders: ``train/CLASS/*`` with ``val/`` or ``test/``, or ``CLASS/*`` with a hold-out."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixskd.data.bundle import IMAGENET_MEAN, IMAGENET_STD, DataBundle, ImageSet
from mixskd.data.images import EXTENSIONS
from mixskd.data.split import stratified_holdout
from mixskd.errors import UserError


class Scan(NamedTuple):
    """What lies in a folder of class folders: class names (sorted), readable files with labels, unreadable files."""

    classes: tuple[str, ...]
    images: ImageSet
    bad: list[Path]


def load_folder(
    path: Path, image_size: int, holdout: float, seed: int, *, skip_bad: bool = False, verify: bool = True
) -> DataBundle:
    """The images under ``path``, scored on ``test/``, else ``val/``, else a hold-out of each class.

    With ``verify`` every file is read once, so that an unreadable image stops the run before it begins; with
    ``skip_bad`` it is left out and counted in the notes. Raises UserError for that, an empty class, one class only, or
    one that train lacks.
    """
    divided = (path / "train").is_dir()
    train = scan(path / "train" if divided else path, skip_bad=skip_bad, verify=verify)
    judge = next((path / name for name in ("test", "val") if divided and (path / name).is_dir()), None)
    if judge is None:
        kept, held = stratified_holdout(train.images.labels, holdout, seed)
        splits, bad = (train.images.subset(kept), train.images.subset(held)), train.bad
    else:
        test = scan(judge, train.classes, skip_bad=skip_bad, verify=verify)
        splits, bad = (train.images, test.images), train.bad + test.bad
    data = bundle(*splits, train.classes, image_size)
    if bad:
        note = f"left out {len(bad)} unreadable image{'s' * (len(bad) > 1)}, the first {bad[0]}"
        data = dataclasses.replace(data, notes=(note,))
    return data


def bundle(train: ImageSet, test: ImageSet, classes: tuple[str, ...], image_size: int) -> DataBundle:
    """Image files with ImageNet's normalisation."""
    return DataBundle(train, test, classes, image_size, IMAGENET_MEAN, IMAGENET_STD)


def scan(path: Path, classes: tuple[str, ...] | None = None, *, skip_bad: bool = False, verify: bool = True) -> Scan:
    """Look through the class folders under ``path``; with ``classes`` given, no others may be there."""
    found = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if classes is None:
        classes = found
        if len(classes) < 2:
            raise UserError(f"{path} needs two class folders or more with images in them; it has {len(classes)}")
    elif strange := sorted(set(found) - set(classes)):
        raise UserError(f"{path} has classes that the training images lack: {', '.join(strange[:5])}")
    files: list[Path] = []
    labels: list[int] = []
    bad: list[Path] = []
    with ThreadPoolExecutor() as pool:
        for name in found:
            images = sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())
            if not images:
                raise UserError(f"the class folder {path / name} holds no image; add some or remove the folder")
            fine = list(pool.map(is_readable, images)) if verify else [True] * len(images)
            bad += [image for image, readable in zip(images, fine, strict=True) if not readable]
            if bad and not skip_bad:
                raise UserError(f"cannot read the image {bad[0]}; repair or remove it, or --skip-bad-images")
            if not any(fine):
                raise UserError(
                    f"the class folder {path / name} holds no readable image; add some or remove the folder"
                )
            files += [image for image, readable in zip(images, fine, strict=True) if readable]
            labels += [classes.index(name)] * sum(fine)
    return Scan(classes, ImageSet(files, np.asarray(labels, dtype=np.int64)), bad)


def is_readable(image: Path) -> bool:
    """Whether ``image`` can be decoded to its end."""
    try:
        with Image.open(image) as opened:
            opened.draft("RGB", (8, 8))  # the lowest scale finds truncated files at a fraction of a full decode's cost
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True
