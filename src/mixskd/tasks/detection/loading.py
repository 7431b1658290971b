"""From an annotated image to a padded batch: decode, flip, resize, normalise, pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from mixskd.data.images import decode_image
from mixskd.errors import UserError
from mixskd.tasks.detection.coco import AnnotatedImage, DetectionSet

PAD = 32  # pixels: the coarsest map of the backbone has this stride


class Sample(NamedTuple):
    """One image ``3 x H x W`` (normalised) with its boxes ``n x 4`` in its own pixels and labels ``n``."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    position: int


@dataclass(frozen=True)
class Sizes:
    """The short side is resized to one of ``short`` pixels, drawn per image, unless the long side exceeds ``long``."""

    short: tuple[int, ...] = (800,)
    long: int = 1333

    @property
    def at_test(self) -> Sizes:
        """The largest size alone."""
        return Sizes((max(self.short),), self.long)


def augmentation(
    sizes: Sizes, mean: Sequence[float], std: Sequence[float], *, flip: bool = True, train: bool = True
) -> v2.Transform:
    """Flip (half of the images, in training), resize that keeps the ratio, then (x / 255 - mean) / std."""
    chosen = sizes if train else sizes.at_test
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip()] if train and flip else []
    steps += [
        v2.ToImage(),
        v2.RandomShortestSize(list(chosen.short), max_size=chosen.long, antialias=True),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(list(mean), list(std)),
    ]
    return v2.Compose(steps)


class DetectionImages(Dataset[Sample]):
    """Samples by ``(index, seed)``; all that is random about one follows from its seed. Crowds are no targets."""

    def __init__(self, split: DetectionSet, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        index, seed = item
        annotated = self.split.images[index]
        single = ~annotated.crowd
        boxes = tv_tensors.BoundingBoxes(
            annotated.boxes[single], format="XYXY", canvas_size=(annotated.height, annotated.width)
        )  # type: ignore[call-overload]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, boxes = self.transform(open_image(annotated), boxes)
        return Sample(image.as_subclass(Tensor), boxes.as_subclass(Tensor), annotated.labels[single], index)


def open_image(annotated: AnnotatedImage) -> Image.Image:
    """The decoded file, RGB. Raises UserError if it is unreadable or has another size than its annotations say."""
    image = decode_image(str(annotated.file))
    if image.size != (annotated.width, annotated.height):
        found, stated = "{} x {}".format(*image.size), f"{annotated.width} x {annotated.height}"
        raise UserError(f"{annotated.file} has {found} pixels, but its annotations say {stated}; correct them")
    return image


class DetectionBatch(NamedTuple):
    """``images`` ``B x 3 x H x W``, zero-padded at the right and the bottom to a multiple of 32.

    ``sizes`` are (height, width) without padding; ``targets`` hold ``boxes`` and ``labels`` of each image; ``indices``
    are places in the split.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[dict[str, Tensor]]
    indices: list[int]


def collate(samples: Sequence[Sample]) -> DetectionBatch:
    """One padded batch of ``samples``."""
    sizes = [(sample.image.shape[-2], sample.image.shape[-1]) for sample in samples]
    height, width = (-(-max(side) // PAD) * PAD for side in zip(*sizes, strict=True))
    images = torch.stack(
        [F.pad(s.image, (0, width - w, 0, height - h)) for s, (h, w) in zip(samples, sizes, strict=True)]
    )
    targets = [{"boxes": sample.boxes, "labels": sample.labels} for sample in samples]
    return DetectionBatch(images, sizes, targets, [sample.position for sample in samples])
