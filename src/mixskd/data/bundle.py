"""A data set in memory: splits by name, classes, and how an image becomes a tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from mixskd.config.records import Mismatch, Text, read_record
from mixskd.data.file_list import FileList
from mixskd.data.images import MAX_PIXELS
from mixskd.data.labels import are_several, check_labels, class_counts
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError

MOST_CLASSES = 1_000_000
LARGEST_IMAGE = 4096  # pixels of height and width, after the resize

SPLITS = ("train", "val", "test")


class ClassNames(Struct):
    """The names of the classes, as messages name their places; a detector may have one class."""

    classes: Annotated[list[Text], Meta(min_length=1, max_length=MOST_CLASSES)]


def check_class_names(classes: Sequence[str], of: str = "") -> None:
    """Raises UserError for names that no file of mixskd can hold; ``of`` is the data's, such as `` of SOURCE``."""
    try:
        read_record({"classes": classes}, ClassNames)
    except Mismatch as error:
        raise UserError(f"the names of the classes{of} cannot be used: {error}") from None


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels.

    Args:
        images: ``N x H x W x C`` (uint8, or fp32 with a range), or N files: a :class:`FileList`, a list of paths, or
            members of shards.
        labels: N class indices; ``N x C`` probabilities (float32); or ``N x C`` of 0 and 1 (uint8), where an image
            may have several labels.
        groups: N names of patients, cameras or bursts, whose images must stay on one side of a split; or None.
        order: each image's place in its source, N integers; or None for 0 to N - 1.
        digests: of each file's bytes, N times 16 bytes (``V16``); or None if no file was read.
    """

    images: np.ndarray | Sequence[Any]
    labels: np.ndarray
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageSet:
        """The images of ``indices``, in that order."""
        images = [self.images[i] for i in indices] if isinstance(self.images, list) else self.images[indices]  # type: ignore[call-overload]
        groups = None if self.groups is None else self.groups[indices]
        digests = None if self.digests is None else self.digests[indices]
        return ImageSet(images, self.labels[indices], groups, self.places[indices], digests)

    def joined(self, other: ImageSet) -> ImageSet:
        """These images, then those of ``other``; both are in memory, or both are files."""

        def both(mine: np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
            return None if mine is None or others is None else np.concatenate([mine, others])

        if self.in_memory:
            images: np.ndarray | Sequence[Any] = np.concatenate([self.images, other.images])
        elif isinstance(self.images, FileList) and isinstance(other.images, FileList):
            images = FileList.of(chain(self.images.texts(), other.images.texts()))
        else:
            images = [*self.images, *other.images]
        labels = np.concatenate([self.labels, other.labels])
        return ImageSet(images, labels, both(self.groups, other.groups), None, both(self.digests, other.digests))

    @property
    def places(self) -> np.ndarray:
        """Each image's place in its source (``N`` integers)."""
        return np.arange(len(self)) if self.order is None else self.order

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, np.ndarray)


def _endings(images: Sequence[Any]) -> Iterator[bytes]:
    """The last two parts of each path."""
    if isinstance(images, FileList):
        return images.endings()
    return ("/".join(str(image).split("/")[-2:]).encode() for image in images)


@dataclass(frozen=True)
class DataBundle:
    """A data set that is ready to be loaded.

    Args:
        splits: ``train``, and ``val`` or ``test`` or both.
        classes: their names, in the order of the labels.
        preprocess: how an image becomes a tensor.
        flip: whether a mirror image keeps its class.
        notes: for a person, such as images left out, or counts that are not the published ones.
        source: the folder under which the files are, if they are files.
        max_pixels: the largest width times height of a file's image that is decoded.
        train_size: height and width of the training images in pixels; those of ``preprocess`` if None.
        divided: whether mixskd itself drew a split; a run then stores the split in its folder.
    """

    splits: Mapping[str, ImageSet]
    classes: tuple[str, ...]
    preprocess: Preprocess
    flip: bool = True
    notes: tuple[str, ...] = ()
    source: Path | None = None
    divided: bool = False
    max_pixels: int = MAX_PIXELS
    train_size: int | None = None

    @property
    def train(self) -> ImageSet:
        """The training images. Raises UserError if there are none."""
        if "train" not in self.splits:
            others = " and ".join(self.splits)
            raise UserError(
                f"the data have no training images, only {others}; add some, or evaluate a classifier on it"
            )
        return self.splits["train"]

    @property
    def test(self) -> ImageSet:
        return self.splits["test"]

    @property
    def scored(self) -> str:
        """The split on which each epoch is scored: ``val`` where there is one, else ``test``."""
        return "val" if "val" in self.splits else "test"

    @property
    def image_size(self) -> int:
        """Height and width of the training images, in pixels."""
        return self.train_size or self.preprocess.image_size

    @property
    def training(self) -> Preprocess:
        """As ``preprocess``, in the size of the training images."""
        return replace(self.preprocess, image_size=self.image_size)

    @property
    def mean(self) -> tuple[float, ...]:
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.preprocess.std

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Plain values by which a resumed run recognises its images: classes, counts, and a digest of labels and file
        names.
        """
        digest = hashlib.sha256()
        self.update(digest)
        names = {"train": "training", "val": "validation", "test": "test"}
        counts = {names[name]: len(split) for name, split in self.splits.items()}
        return {"classes": list(self.classes), **counts, "digest": digest.hexdigest()}

    def update(self, digest: Any) -> None:
        """Add labels and file names to ``digest``, of hashlib."""
        for split in (self.splits[name] for name in SPLITS if name in self.splits):
            kind = np.int64 if split.labels.ndim == 1 else split.labels.dtype
            digest.update(np.ascontiguousarray(split.labels, dtype=kind).tobytes())
            if not split.in_memory:
                for i, ending in enumerate(_endings(split.images)):  # type: ignore[arg-type]
                    digest.update(b"\0" + ending if i else ending)

    def check_unchanged(self, before: dict[str, Any], run: Path) -> None:
        """Raises UserError if the fingerprint differs from ``before``, that of the stopped ``run``."""
        if before == self.fingerprint:
            return

        def counts(data: dict[str, Any]) -> str:
            numbers = [f"{data[name]} {name}" for name in ("training", "validation", "test") if name in data]
            return f"{' and '.join(numbers)} images of {len(data['classes'])} classes"

        was, now = counts(before), counts(self.fingerprint)
        if was == now:
            was = "the same numbers, but other images"
        raise UserError(
            f"the data have changed since {run} was stopped: {now} now, {was} before; "
            "put them back as they were, or start a new run with another --out"
        )

    def about_labels(self) -> str:
        """The smallest and the largest class of the training images, in one line."""
        counts = self.counts
        order = np.argsort(-counts, kind="stable")
        least, most = (f"{round(counts[i]):,} ({self.classes[i]})" for i in (order[-1], order[0]))
        several = ", several labels an image" if self.several else ""
        return f"images a class: {least} to {most}{several}"

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return any(are_several(split.labels) for split in self.splits.values())

    @property
    def counts(self) -> np.ndarray:
        """The training images of each class (``C``); of probabilities as labels, their sum."""
        return class_counts(self.train.labels, len(self.classes))

    def check(self) -> None:
        """Raises UserError for a single class, an empty split, labels without a class, or a class without images."""
        if len(self.classes) < 2:
            raise UserError(f"there is one class only ({', '.join(self.classes)}); a classifier needs two or more")
        if not 1 <= self.image_size <= LARGEST_IMAGE:
            raise UserError(f"images of {self.image_size} px cannot be used; they have 1 to {LARGEST_IMAGE} px")
        check_class_names(self.classes)
        for name, split in self.splits.items():
            name = "training" if name == "train" else name
            if not len(split):
                raise UserError(f"the {name} split holds no image")
            check_labels(split.labels, self.classes, name)
        if "train" not in self.splits:
            return
        if missing := [name for name, images in zip(self.classes, self.counts, strict=True) if not images]:
            shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            raise UserError(f"{len(missing)} of {len(self.classes)} classes have no training image: {shown}")
