"""Data sets that fit in memory as arrays: the embedded digits, and ``.npz`` files with MedMNIST's keys."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mixskd.data.bundle import MOST_CLASSES, SPLITS, DataBundle, ImageSet
from mixskd.data.labels import are_several, are_soft
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD, Preprocess
from mixskd.errors import UserError, first_line

Range = tuple[float, ...] | None  # as data.range


def load_digits(channels: int = 3) -> DataBundle:
    """1,797 handwritten digits of 8 x 8 pixels, shipped with scikit-learn, enlarged to 16 x 16; 10 classes."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    pixels = np.asarray(digits.images * (255 / 16), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    images = ImageSet(with_channels(pixels, channels), np.asarray(digits.target, dtype=np.int64))
    preprocess = Preprocess(16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return DataBundle({"train": images}, tuple(map(str, range(10))), preprocess, flip=False)


def load_npz(path: Path, channels: int = 3, values: Range = None) -> DataBundle:
    """An ``.npz`` with ``train_images`` (uint8 ``N x H x W``, or with channels last) and ``train_labels``,
    the same for ``val_*`` and ``test_*`` if there are, optionally ``classes``. One with ``val_*`` or ``test_*`` alone
    can be evaluated.

    Labels are ``N`` or ``N x 1`` integers; ``N x C`` integers or bools, 0 and 1, where an image may have several; or
    ``N x C`` floating-point numbers, the probabilities of its one class. Beside the latter, integers are as good.

    With ``values``, images of any numbers become fp32, those two values 0 and 1. Nothing in the file is executed.
    Raises UserError for anything else.
    """
    arrays = _read(path)
    splits = {name: _split(path, arrays, name, channels, values) for name in SPLITS if f"{name}_images" in arrays}
    if not splits or ("train" not in splits and "train_labels" in arrays):
        raise UserError(f"{path} has no train_images and train_labels; it holds: {', '.join(sorted(arrays))}")
    shapes = {np.asarray(split.images).shape[1:] for split in splits.values()}
    if len(shapes) > 1:
        raise UserError(f"{path}: the splits' images differ in size: {', '.join(map(str, sorted(shapes)))}")
    if "classes" in arrays:
        classes = tuple(str(name) for name in arrays["classes"].reshape(-1))
    else:
        classes = tuple(str(i) for i in range(_highest(splits) + 1))
    height, width = next(iter(shapes))[:2]
    if height != width:
        raise UserError(f"{path}: images are {height} x {width}; square ones are needed, so crop or pad them first")
    return DataBundle(_alike(path, splits, len(classes)), classes, Preprocess(height, CIFAR_MEAN, CIFAR_STD))


def _highest(splits: dict[str, ImageSet]) -> int:
    """The highest class of the training images; without them, of all."""
    labelled = [splits["train"]] if "train" in splits else list(splits.values())
    return max(int(y.max()) if y.ndim == 1 else y.shape[1] - 1 for y in (split.labels for split in labelled))


def _alike(path: Path, splits: dict[str, ImageSet], classes: int) -> dict[str, ImageSet]:
    """``splits`` with labels of one kind: where any are probabilities, class indices become such too."""
    if len({are_several(split.labels) for split in splits.values()}) > 1:
        raise UserError(f"{path}: one split has several labels an image and another one; give all of them alike")
    if not any(are_soft(split.labels) for split in splits.values()):
        return splits
    return {
        name: split
        if split.labels.ndim == 2
        else replace(split, labels=np.eye(classes, dtype=np.float32)[split.labels])
        for name, split in splits.items()
    }


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """``N x H x W`` or ``N x H x W x C`` as ``N x H x W x channels``: grey images may become RGB, and an alpha channel
    is dropped. Raises UserError for other images.
    """
    images = images[..., None] if images.ndim == 3 else images
    if channels == 3 and images.shape[3] in (1, 4):
        return images.repeat(3, axis=3) if images.shape[3] == 1 else np.ascontiguousarray(images[..., :3])
    if images.shape[3] != channels:
        raise UserError(f"the images have {images.shape[3]} channels, not {channels} as data.channels says")
    return images


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):  # numpy would treat it as a pickle, which can execute code
            raise zipfile.BadZipFile("it is not a zip archive, or was cut off")
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            _check_unpacked(file.zip)
            arrays = {key: file[key] for key in file.files}
            if odd := [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]:
                raise ValueError(f"{odd[0]} is not an array")
            return arrays
    except Exception as error:  # damaged bytes make numpy and zlib raise any kind of error
        raise UserError(f"cannot read {path} as an .npz of plain arrays: {first_line(error)}") from None


def _check_unpacked(archive: zipfile.ZipFile) -> None:
    """Raises ValueError if the arrays would take more memory than this machine has."""
    size = sum(member.file_size for member in archive.infolist())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(f"it holds {size / 1e9:.0f} GB, more than this machine's memory ({memory / 1e9:.0f} GB)")


def _split(path: Path, arrays: dict[str, np.ndarray], name: str, channels: int, values: Range) -> ImageSet:
    images = arrays[f"{name}_images"]
    if f"{name}_labels" not in arrays:
        raise UserError(f"{path} has {name}_images but no {name}_labels")
    labels = arrays[f"{name}_labels"]
    if values is None and images.dtype != np.uint8:
        raise UserError(
            f"{path}: {name}_images is {images.dtype}; it must be uint8, 0 to 255, or --data.range says which values "
            "become 0 and 1"
        )
    if images.ndim not in (3, 4) or images.dtype.kind not in "uif":
        raise UserError(
            f"{path}: {name}_images is {images.dtype} of shape {images.shape}; it must be numbers, N x H x W, or with "
            "channels last"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or labels.dtype.kind not in ("iu" if labels.ndim == 1 else "iubf"):
        raise UserError(
            f"{path}: {name}_labels is {labels.dtype} of shape {labels.shape}; it must be N integers, or N x C numbers"
        )
    if not len(labels):
        raise UserError(f"{path}: {name}_labels is empty; there must be an image or more")
    if labels.min() < 0:
        raise UserError(f"{path}: the smallest of {name}_labels is {labels.min()}; labels must be 0 or above")
    if labels.ndim == 2 and labels.dtype.kind != "f" and labels.max() > 1:
        raise UserError(f"{path}: the largest of {name}_labels is {labels.max()}; N x C integers must be 0 or 1")
    if max([labels.max(), *labels.shape[1:]]) >= MOST_CLASSES:
        raise UserError(
            f"{path}: the largest of {name}_labels is {labels.max()}, but there may be up to {MOST_CLASSES:,} classes"
        )
    if len(labels) != len(images):
        raise UserError(f"{path}: {len(images)} {name}_images but {len(labels)} {name}_labels")
    images = with_channels(images, channels)
    if values is not None:
        images = (images.astype(np.float32) - np.float32(values[0])) / np.float32(values[1] - values[0])
        if not np.isfinite(images).all():
            raise UserError(f"{path}: {name}_images holds values that are not finite")
    kind = np.int64 if labels.ndim == 1 else np.float32 if labels.dtype.kind == "f" else np.uint8
    return ImageSet(images, labels.astype(kind))
