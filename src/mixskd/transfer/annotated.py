"""Data whose labels are boxes or masks, as the trainer takes data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError
from mixskd.transfer.detection.coco import DetectionSet
from mixskd.transfer.segmentation.data import SegmentationSet


@dataclass(frozen=True)
class AnnotatedBundle(DataBundle):
    """``splits`` hold the files, and ``annotated`` the same images with their boxes or masks."""

    annotated: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Classes, numbers of images, and a digest of the annotations and the files' names."""
        digest = hashlib.sha256()
        for name in (name for name in SPLITS if name in self.annotated):
            split = self.annotated[name]
            if isinstance(split, DetectionSet):
                for image in split.images:
                    digest.update(image.file.name.encode() + image.boxes.numpy().tobytes())
                    digest.update(image.labels.numpy().tobytes() + image.crowd.numpy().tobytes())
            else:
                pairs = zip(split.images, split.masks, strict=True)
                digest.update("\0".join(f"{image.name}/{mask.name}" for image, mask in pairs).encode())
        names = {"train": "training", "val": "validation", "test": "test"}
        counts = {names[name]: len(split) for name, split in self.splits.items()}
        return {"classes": list(self.classes), **counts, "digest": digest.hexdigest()}

    def about_labels(self) -> str:
        """In a line for a person, what the training images hold."""
        train = self.annotated["train"]
        if not isinstance(train, DetectionSet):
            return "a class for every pixel"
        empty = sum(not len(image.labels) for image in train.images)
        return f"{train.objects:,} training objects, {empty:,} training images without one"

    def check(self) -> None:
        """Raises UserError if there is nothing to score, or a split without an image or, for detection, an object."""
        if "val" not in self.splits and "test" not in self.splits:
            raise UserError(f"{self.source} has neither a val nor a test split; add one, since a run must be scored")
        for name, split in self.annotated.items():
            if not len(split) or (isinstance(split, DetectionSet) and not split.objects):
                raise UserError(f"the {name} split of {self.source} holds no annotated image")


def bundle(
    splits: Mapping[str, DetectionSet] | Mapping[str, SegmentationSet], preprocess: Preprocess, source: Path, *,
    flip: bool,
) -> AnnotatedBundle:  # fmt: skip
    """``splits`` with how their images become tensors. Raises UserError as :meth:`AnnotatedBundle.check` says."""
    files = {name: ImageSet(_files(split), np.zeros(len(split), dtype=np.int64)) for name, split in splits.items()}
    ordered = {name: files[name] for name in SPLITS if name in files}
    notes = tuple(note for split in splits.values() for note in split.notes)
    classes = splits["train"].classes
    made = AnnotatedBundle(ordered, classes, preprocess, flip, notes, source, annotated=dict(splits))
    made.check()
    return made


def _files(split: DetectionSet | SegmentationSet) -> list[Path]:
    return [image.file for image in split.images] if isinstance(split, DetectionSet) else list(split.images)
