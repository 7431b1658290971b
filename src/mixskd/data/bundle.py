"""What a data set is to the rest of the library."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixskd.errors import UserError

CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels: ``images`` is uint8 ``N x H x W x 3``, or N files; ``labels`` N class indices."""

    images: np.ndarray | Sequence[Any]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageSet:
        """The images of ``indices``, in that order."""
        images = [self.images[i] for i in indices] if isinstance(self.images, list) else self.images[indices]  # type: ignore[call-overload]
        return ImageSet(images, self.labels[indices])

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, np.ndarray)


@dataclass(frozen=True)
class DataBundle:
    """A data set ready to be loaded: two splits, the class names, and how an image becomes a tensor.

    ``notes`` are what a person should know of it: images left out, counts that are not the published ones.
    ``image_size`` in pixels; ``mean`` and ``std`` of the channels of images in [0, 1]; ``flip``: whether a mirror image
    keeps its class.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...] = CIFAR_MEAN
    std: tuple[float, ...] = CIFAR_STD
    flip: bool = True
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Plain values that tell whether a run may go on with these images: classes, numbers, and a digest of the
        labels and the files' names.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            digest.update(np.ascontiguousarray(split.labels, dtype=np.int64).tobytes())
            if not split.in_memory:
                digest.update("\0".join("/".join(str(image).split("/")[-2:]) for image in split.images).encode())
        counts = {"training": len(self.train), "test": len(self.test)}
        return {"classes": list(self.classes), **counts, "digest": digest.hexdigest()}

    def check_unchanged(self, before: dict[str, Any], run: Path) -> None:
        """Raises UserError if the fingerprint ``before``, of ``run``, is another one."""
        if before == self.fingerprint:
            return

        def counts(data: dict[str, Any]) -> str:
            return f"{data['training']} training and {data['test']} test images of {len(data['classes'])} classes"

        was, now = counts(before), counts(self.fingerprint)
        if was == now:
            was = "as many, but others"
        raise UserError(
            f"the data have changed since {run} was stopped: {now}, before {was}; "
            "put them back as they were, or start anew with another --out"
        )

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise UserError(f"there is one class only ({', '.join(self.classes)}); a classifier needs two or more")
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise UserError(f"the {name} split holds no image")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise UserError(
                    f"{name} labels run from {low} to {high}, but there are {len(self.classes)} classes: "
                    f"they must lie in 0 to {len(self.classes) - 1}"
                )
        counts = Counter(self.train.labels.tolist())
        if missing := [name for index, name in enumerate(self.classes) if index not in counts]:
            shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            raise UserError(f"{len(missing)} of {len(self.classes)} classes have no training image: {shown}")
