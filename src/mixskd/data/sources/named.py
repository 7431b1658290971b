"""Data sets by name: torchvision's own, and others read from their official files under ``root``."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torchvision import datasets as tv

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD, Preprocess
from mixskd.data.sources.folder import load_folder
from mixskd.errors import UserError, first_line
from mixskd.runtime.files import locked

DEFAULT_ROOT = "~/.cache/mixskd"
Read = Callable[[Path, int, bool], DataBundle]  # from the folder, the image size, and whether it may download


@dataclass(frozen=True)
class NamedSet:
    """How to read one data set; ``counts`` are the published numbers of training and test images."""

    about: str
    image_size: int
    counts: tuple[int, int]
    read: Read


def load_named(name: str, root: str | None, image_size: int | None, *, download: bool = True) -> DataBundle:
    """The data set ``name`` under ``root``, with a note if its counts differ from the published ones.

    Raises UserError if its files are not there and cannot be downloaded, or must not be.
    """
    named = NAMED[name]
    folder = Path(root or DEFAULT_ROOT).expanduser()
    try:
        data = named.read(folder, image_size or named.image_size, download)
    except (RuntimeError, OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"cannot read {name} under {folder} ({reason}); name its folder with --data.root") from None
    counts = len(data.train), len(data.test)
    if counts != named.counts:
        published = f"{named.counts[0]:,} and {named.counts[1]:,}"
        note = f"{name} has {counts[0]:,} training and {counts[1]:,} test images, not {published}"
        data = dataclasses.replace(data, notes=(*data.notes, note))
    return data


T = TypeVar("T")


def _fetched(root: Path, read: Callable[[bool], T], allowed: bool = True) -> T:
    """``read(False)``, from the files under ``root``; else ``read(True)``, which downloads, if that is ``allowed``.

    While one process downloads, the others wait.
    """

    def read_locked(download: bool) -> T:
        with ExitStack() as stack:
            with suppress(OSError):  # a read-only folder needs no lock, and some file systems have none
                stack.enter_context(locked(root / ".mixskd.lock", shared=not download))
            return read(download)

    try:
        return read_locked(False)
    except RuntimeError:  # torchvision's error for missing or damaged files
        if not allowed:
            raise
        return read_locked(True)


def _cifar(kind: type[tv.CIFAR10]) -> Read:
    def read(root: Path, image_size: int, allowed: bool) -> DataBundle:
        if image_size != 32:
            raise UserError("CIFAR's images have 32 px; leave --data.image-size out")
        train, test = _fetched(
            root, lambda download: [kind(str(root), train=part, download=download) for part in (True, False)], allowed
        )
        sets = [ImageSet(split.data, np.asarray(split.targets, dtype=np.int64)) for split in (train, test)]
        splits = {"train": sets[0], "test": sets[1]}
        return DataBundle(splits, tuple(train.classes), Preprocess(32, CIFAR_MEAN, CIFAR_STD))

    return read


def bundle(train: ImageSet, test: ImageSet, classes: tuple[str, ...], image_size: int) -> DataBundle:
    """Image files of a data set with the two splits of its authors."""
    return DataBundle({"train": train, "test": test}, classes, Preprocess(image_size))


def _files(paths: Iterable[str | Path], labels: Iterable[int]) -> ImageSet:
    return ImageSet(FileList.of(paths), np.asarray(list(labels), dtype=np.int64))


def _torchvision(kind: Any, files: str = "_image_files", train: Sequence[str] = ("trainval",)) -> Read:
    """A reader of torchvision's data set ``kind``, which has its files in the attribute ``files``.

    The splits ``train`` together are the training images.
    """

    def read(root: Path, image_size: int, allowed: bool) -> DataBundle:
        *first, test = _fetched(
            root, lambda download: [kind(root, split, download=download) for split in (*train, "test")], allowed
        )
        paths = [path for split in first for path in getattr(split, files)]
        labels = [label for split in first for label in split._labels]
        test_set = _files(getattr(test, files), test._labels)
        return bundle(_files(paths, labels), test_set, tuple(test.classes), image_size)

    return read


def _cars(root: Path, image_size: int, _: bool) -> DataBundle:
    train, test = (tv.StanfordCars(root, split) for split in ("train", "test"))
    sets = [_files(*zip(*split._samples, strict=True)) for split in (train, test)]
    return bundle(sets[0], sets[1], tuple(train.classes), image_size)


def _cub200(root: Path, image_size: int, _: bool) -> DataBundle:
    """``CUB_200_2011/`` with images.txt, train_test_split.txt, image_class_labels.txt and classes.txt."""
    folder = _home(root, "CUB_200_2011")
    table = {name: _columns(folder / f"{name}.txt") for name in ("images", "train_test_split", "image_class_labels")}
    classes = tuple(name for _, name in sorted(_columns(folder / "classes.txt").items(), key=lambda item: int(item[0])))
    splits: dict[str, tuple[list[Path], list[int]]] = {"1": ([], []), "0": ([], [])}
    for number, name in table["images"].items():
        paths, labels = splits[table["train_test_split"][number]]
        paths.append(folder / "images" / name)
        labels.append(int(table["image_class_labels"][number]) - 1)
    return bundle(_files(*splits["1"]), _files(*splits["0"]), classes, image_size)


def _home(root: Path, name: str) -> Path:
    """The folder ``name`` under ``root`` if there is one, else ``root`` itself."""
    return root / name if (root / name).is_dir() else root


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _columns(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in _lines(path))


def _dogs(root: Path, image_size: int, _: bool) -> DataBundle:
    """``Images/`` with train_list.mat and test_list.mat."""
    from scipy.io import loadmat

    folder = _home(root, "StanfordDogs")
    names: dict[int, str] = {}
    sets = []
    for split in ("train", "test"):
        table = loadmat(str(folder / f"{split}_list.mat"))
        files = [str(entry[0][0]) for entry in table["file_list"]]
        labels = [int(label) - 1 for label in table["labels"].ravel()]
        names |= {label: file.split("/")[0].split("-", 1)[-1] for file, label in zip(files, labels, strict=True)}
        sets.append(_files([folder / "Images" / file for file in files], labels))
    return bundle(sets[0], sets[1], tuple(names[i] for i in sorted(names)), image_size)


def _mit67(root: Path, image_size: int, _: bool) -> DataBundle:
    """``Images/`` with TrainImages.txt and TestImages.txt."""
    folder = _home(root, "MIT67")
    lists = [_lines(folder / f"{split}Images.txt") for split in ("Train", "Test")]
    classes = tuple(sorted({name.split("/")[0] for name in lists[0]}))
    index = {name: i for i, name in enumerate(classes)}
    sets = [_files([folder / "Images" / n for n in names], [index[n.split("/")[0]] for n in names]) for names in lists]
    return bundle(sets[0], sets[1], classes, image_size)


def _imagenet(root: Path, image_size: int, _: bool) -> DataBundle:
    data = load_folder(_home(root, "imagenet"), image_size)
    splits = {"test" if name == "val" else name: split for name, split in data.splits.items()}
    return dataclasses.replace(data, splits=splits)  # its val/ is what papers report, and there is no other


NAMED: dict[str, NamedSet] = {
    "cifar10": NamedSet("10 classes, 32 px (torchvision)", 32, (50_000, 10_000), _cifar(tv.CIFAR10)),
    "cifar100": NamedSet("100 classes, 32 px (torchvision)", 32, (50_000, 10_000), _cifar(tv.CIFAR100)),
    "flowers102": NamedSet(
        "102 flowers (torchvision; train and val together)",
        224,
        (2_040, 6_149),
        _torchvision(tv.Flowers102, train=("train", "val")),
    ),
    "aircraft": NamedSet(
        "FGVC-Aircraft, 100 variants (torchvision)", 224, (6_667, 3_333), _torchvision(tv.FGVCAircraft)
    ),
    "cars": NamedSet("Stanford Cars, 196 models (torchvision; not downloadable)", 224, (8_144, 8_041), _cars),
    "pets": NamedSet(
        "Oxford-IIIT Pets, 37 breeds (torchvision)", 224, (3_680, 3_669), _torchvision(tv.OxfordIIITPet, "_images")
    ),
    "cub200": NamedSet("CUB-200-2011, 200 birds (official files)", 224, (5_994, 5_794), _cub200),
    "dogs": NamedSet("Stanford Dogs, 120 breeds (official files)", 224, (12_000, 8_580), _dogs),
    "mit67": NamedSet("MIT indoor scenes, 67 classes (official files)", 224, (5_360, 1_340), _mit67),
    "imagenet": NamedSet("ImageNet-1k, folders train/ and val/", 224, (1_281_167, 50_000), _imagenet),
}
