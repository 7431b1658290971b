"""From an annotated image to a padded batch: decode, flip, resize, normalise, pad."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from mixskd.data.batch import Batch
from mixskd.data.images import decode_image
from mixskd.errors import UserError
from mixskd.runtime.random_numbers import seeded
from mixskd.transfer.detection.data import AnnotatedImage, DetectionSet, wrong_size

PAD = 32  # pixels: the coarsest map of the backbone has this stride


class Sample(NamedTuple):
    """An image ``3 x H x W`` (normalised), boxes ``n x 4`` in its pixels, labels ``n``, and its index in the split."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    position: int


def augmentation(
    short: Sequence[int], long: int, mean: Sequence[float], std: Sequence[float],
    *, flip: bool = True, train: bool = True,
) -> v2.Transform:  # fmt: skip
    """Flip (half of the images, in training), resize that keeps the ratio, then (x / 255 - mean) / std.

    The short side gets one of ``short`` pixels, drawn per image, or fewer where the long side would exceed ``long``.
    Without ``train`` the largest size alone is used.
    """
    short = short if train else (max(short),)
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip()] if train and flip else []
    steps += [
        v2.ToImage(),
        v2.RandomShortestSize(list(short), max_size=long, antialias=True),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(list(mean), list(std)),
    ]
    return v2.Compose(steps)


class DetectionImages(Dataset[Sample]):
    """Samples by ``(index, seed)``; all draws depend on the seed. Crowds are not among the targets."""

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
        with seeded(seed):
            image, boxes = self.transform(open_image(annotated, self.split.max_pixels), boxes)
        return Sample(image.as_subclass(Tensor), boxes.as_subclass(Tensor), annotated.labels[single], index)


def open_image(annotated: AnnotatedImage, max_pixels: int) -> Image.Image:
    """The decoded file, RGB. Raises UserError if it is unreadable or has another size than its annotations say."""
    image = decode_image(annotated.file, max_pixels=max_pixels)
    if image.size != (annotated.width, annotated.height):
        raise UserError(f"{wrong_size(annotated, image.size)}; correct them")
    return image


def padded(samples: Sequence[Sample]) -> tuple[Tensor, list[tuple[int, int]]]:
    """``B x 3 x H x W``, zero-padded to a multiple of 32, and each image's size (height, width) without padding."""
    sizes = [(sample.image.shape[-2], sample.image.shape[-1]) for sample in samples]
    height, width = (-(-max(side) // PAD) * PAD for side in zip(*sizes, strict=True))
    images = [F.pad(s.image, (0, width - w, 0, height - h)) for s, (h, w) in zip(samples, sizes, strict=True)]
    return torch.stack(images), sizes


def train_batch(samples: Sequence[Sample]) -> Batch:
    """A batch whose ``labels`` are ``B x M x 5``: label and box of each object, and label -1 where an image has fewer.

    ``extra["sizes"]`` is ``B x 2``: height and width without the padding.
    """
    images, sizes = padded(samples)
    objects = [torch.cat([s.labels[:, None].to(s.boxes.dtype), s.boxes], 1) for s in samples]
    most = max(len(one) for one in objects)
    labels = torch.stack([F.pad(one, (0, 0, 0, most - len(one)), value=-1.0) for one in objects])
    return Batch(images, labels, {"sizes": torch.tensor(sizes)})


def targets_of(labels: Tensor) -> list[dict[str, Tensor]]:
    """``boxes`` and ``labels`` of each image, from the ``labels`` of a training batch."""
    objects = [one[one[:, 0] > 0] for one in labels]
    return [{"boxes": one[:, 1:], "labels": one[:, 0].to(torch.int64)} for one in objects]


def score_batch(split: DetectionSet, samples: Sequence[Sample]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """The images of ``samples`` of ``split`` with their sizes, and the ground truth of their files."""
    images, sizes = padded(samples)
    annotated = [split.images[sample.position] for sample in samples]
    files = [(image.height, image.width) for image in annotated]
    return {"images": images, "sizes": sizes, "files": files}, [truth(image) for image in annotated]


def truth(image: AnnotatedImage) -> dict[str, Tensor]:
    """The ground truth of ``image`` in the pixels of its file, crowds included, as torchmetrics takes it."""
    return {
        "boxes": image.boxes, "labels": image.labels, "iscrowd": image.crowd.to(torch.int64), "area": image.area,
    }  # fmt: skip
