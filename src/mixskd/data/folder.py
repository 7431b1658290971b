"""Image folders: ``train/CLASS/*`` with ``val/`` or ``test/``, or ``CLASS/*`` with a hold-out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from mixskd.data.bundle import IMAGENET_MEAN, IMAGENET_STD, DataBundle, ImageSet
from mixskd.data.images import EXTENSIONS
from mixskd.data.split import stratified_holdout
from mixskd.errors import UserError


def load_folder(path: Path, image_size: int, holdout: float, seed: int, *, skip_bad: bool = False) -> DataBundle:
    """The images under ``path``, scored on ``test/``, else ``val/``, else a hold-out of each class.

    Every file's header is read once, so that an unreadable image stops the run before it begins; with ``skip_bad`` it
    is left out and counted. Raises UserError for that, an empty class, one class only, or a class that train lacks.
    """
    if not (path / "train").is_dir():
        classes, files, labels = scan(path, skip_bad=skip_bad)
        kept, held = stratified_holdout(labels, holdout, seed)
        train = ImageSet([files[i] for i in kept], labels[kept])
        test = ImageSet([files[i] for i in held], labels[held])
        return bundle(train, test, classes, image_size)
    classes, files, labels = scan(path / "train", skip_bad=skip_bad)
    train = ImageSet(files, labels)
    for name in ("test", "val"):
        if (path / name).is_dir():
            _, files, labels = scan(path / name, classes, skip_bad=skip_bad)
            return bundle(train, ImageSet(files, labels), classes, image_size)
    kept, held = stratified_holdout(train.labels, holdout, seed)
    test = ImageSet([files[i] for i in held], labels[held])
    return bundle(ImageSet([files[i] for i in kept], labels[kept]), test, classes, image_size)


def bundle(train: ImageSet, test: ImageSet, classes: tuple[str, ...], image_size: int) -> DataBundle:
    """Image files with ImageNet's normalisation."""
    return DataBundle(train, test, classes, image_size, IMAGENET_MEAN, IMAGENET_STD)


def scan(
    path: Path, classes: tuple[str, ...] | None = None, *, skip_bad: bool = False
) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """The classes (folder names, sorted), files and labels under ``path``; with ``classes`` given, no others may be."""
    found = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if classes is None:
        classes = found
        if len(classes) < 2:
            raise UserError(f"{path} needs two class folders or more with images in them; it has {len(classes)}")
    elif strange := sorted(set(found) - set(classes)):
        raise UserError(f"{path} has classes that the training images lack: {', '.join(strange[:5])}")
    files: list[Path] = []
    labels: list[int] = []
    for name in found:
        images = sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())
        if not images:
            raise UserError(f"the class folder {path / name} holds no image; add some or remove the folder")
        readable = check(images, skip_bad=skip_bad)
        if not readable:
            raise UserError(f"the class folder {path / name} holds no readable image; add some or remove the folder")
        files += readable
        labels += [classes.index(name)] * len(readable)
    return classes, files, np.asarray(labels, dtype=np.int64)


def check(images: Iterable[Path], *, skip_bad: bool) -> list[Path]:
    """Those of ``images`` that open. Raises UserError naming the first that does not, unless ``skip_bad``."""
    readable, bad = [], []
    for image in images:
        try:
            with Image.open(image) as opened:
                # A draft decode at the lowest scale finds truncated files at a fraction of a full decode's cost.
                opened.draft("RGB", (8, 8))
                opened.load()
            readable.append(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            if not skip_bad:
                raise UserError(f"cannot read the image {image}; repair or remove it, or --skip-bad-images") from None
            bad.append(image)
    if bad:
        warnings.warn(f"left out {len(bad)} unreadable images, the first {bad[0]}", stacklevel=2)
    return readable
