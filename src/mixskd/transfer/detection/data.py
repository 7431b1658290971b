"""Images with boxes, and the checks that every source of them passes through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixskd.data.images import MAX_PIXELS
from mixskd.errors import UserError
from mixskd.transfer.source_files import BadItems, Size, examined, image_size

TOLERANCE = 1.0  # pixels: COCO's own boxes are rounded, and some end a fraction of a pixel outside
SMALLEST = 0.01  # pixels: the logarithm of a smaller width or height is no target for training


class Box(NamedTuple):
    """One object as its file describes it.

    ``label`` runs from 1 to N. ``box`` is x, y, width and height in pixels. ``area`` is that of the box if None.
    ``where`` names the object in messages.
    """

    label: int
    box: tuple[float, float, float, float]
    where: str
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects.

    ``boxes`` is ``n x 4`` (x1, y1, x2, y2 in pixels), ``labels`` ``n`` (1 to N; 0 is the background), ``crowd`` and
    ``area`` ``n``. An image without objects has n = 0. Crowds are not trained on.
    """

    id: int
    file: Path
    width: int
    height: int
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor


@dataclass(frozen=True)
class DetectionSet:
    """One split: its images, and the names and category ids of the classes; label k is ``classes[k - 1]``."""

    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.images)

    @property
    def files(self) -> list[Path]:
        """The file of each image."""
        return [image.file for image in self.images]

    @cached_property
    def objects(self) -> int:
        """The number of annotated objects, crowds included."""
        return sum(len(image.labels) for image in self.images)

    def without_empty(self) -> DetectionSet:
        """The images that hold at least one object that is no crowd, as the paper trains on."""
        return dataclasses.replace(self, images=tuple(image for image in self.images if not image.crowd.all()))

    def update(self, digest: Any) -> None:
        """Add the annotations and the files' names to ``digest``, of hashlib."""
        for image in self.images:
            digest.update(image.file.name.encode(errors="surrogateescape") + image.boxes.numpy().tobytes())
            digest.update(image.labels.numpy().tobytes() + image.crowd.numpy().tobytes())

    def about_labels(self) -> str:
        """How many objects there are, in words."""
        empty = sum(not len(image.labels) for image in self.images)
        return f"{self.objects:,} training objects, {empty:,} training images without one"

    def check(self, where: str) -> None:
        """Raises UserError for a split, called ``where``, in which no object can be trained on or scored."""
        if not self.objects:
            raise UserError(f"{where} holds no annotated object; add some annotations")
        if all(bool(image.crowd.all()) for image in self.images):
            raise UserError(f"every object of {where} is a crowd, and crowds are neither trained on nor scored")


def annotated_image(
    image_id: int, file: Path, size: Size, objects: Sequence[Box], classes: int, bad: BadItems
) -> AnnotatedImage:
    """``file`` of ``size`` (width, height) with those of ``objects`` that can be used; ``bad`` counts the others.

    A box that ends at most one pixel outside its image is clipped. One that is then less than 0.01 pixels wide or high
    is left out; COCO's own train2017 has two of them.
    """
    width, height = size
    kept, corners = [], []
    for one in objects:
        x, y, w, h = one.box
        if not 1 <= one.label <= classes:
            bad.annotation(f"{one.where}: the class is not one of the {classes} of the data")
        elif not (w >= 0 and h >= 0):
            bad.annotation(f"{one.where}: the box {list(one.box)} has a negative width or height")
        elif not (x >= -TOLERANCE and y >= -TOLERANCE and x + w <= width + TOLERANCE and y + h <= height + TOLERANCE):
            bad.annotation(f"{one.where}: the box {list(one.box)} lies outside its image of {width} x {height} pixels")
        else:
            x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
            if min(x2 - x1, y2 - y1) < SMALLEST:
                bad.empty_boxes.append(f"{one.where}, the box {list(one.box)}")
            else:
                kept.append(one)
                corners.append((x1, y1, x2, y2))
    areas = [one.box[2] * one.box[3] if one.area is None else one.area for one in kept]
    return AnnotatedImage(
        image_id,
        file,
        width,
        height,
        boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([one.label for one in kept], dtype=torch.int64),
        crowd=torch.tensor([one.crowd for one in kept], dtype=torch.bool),
        area=torch.tensor(areas, dtype=torch.float32),
    )


def images_from(
    files: Iterable[Path], boxes_of: Callable[[Path, Size], Sequence[Box]], classes: int, bad: BadItems
) -> tuple[AnnotatedImage, ...]:
    """The images ``files``, numbered from 1, whose sizes are read from their headers, with the objects ``boxes_of``."""
    images = []
    for number, file in enumerate(files, start=1):
        try:
            size = image_size(file)
        except UserError as error:
            bad.image(str(error))
        else:
            images.append(annotated_image(number, file, size, boxes_of(file, size), classes, bad))
    return tuple(images)


def readable(images: Sequence[AnnotatedImage], bad: BadItems, verify: str, max_pixels: int) -> list[AnnotatedImage]:
    """Those of ``images`` whose file can be decoded and has the size of its annotations; ``bad`` counts the others."""
    kept = []
    for image, found in zip(images, examined([image.file for image in images], verify, max_pixels), strict=True):
        if isinstance(found, UserError):
            bad.image(str(found))
        elif found != (image.width, image.height):
            bad.annotation(wrong_size(image, found))
        else:
            kept.append(image)
    return kept


def wrong_size(image: AnnotatedImage, found: Size) -> str:
    """In one line, that the file of ``image`` has the size ``found``, and not that of its annotations."""
    stated = f"{image.width} x {image.height}"
    return f"{image.file} has {found[0]} x {found[1]} pixels, but its annotations say {stated}"
