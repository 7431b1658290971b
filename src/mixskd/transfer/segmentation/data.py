"""Images with a class index for every pixel, checked before anything is trained."""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixskd.data.images import MAX_PIXELS
from mixskd.errors import UserError, first_line
from mixskd.transfer.source_files import BadItems, examined

IGNORE = 255


@dataclass(frozen=True)
class SegmentationSet:
    """One split: ``images`` and their ``masks`` (files), the names of the classes, and how a mask is read.

    ``labels[v]`` is the class of a pixel of value v: 0 to N - 1, 255 for a pixel that is ignored, or -1 for a value
    that no mask may hold. ``released_classes`` is the number of outputs over which the paper's released code averages,
    where that is another one (COCO-Stuff). ``all_ignored`` is set if no pixel of the split has a class.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    released_classes: int | None = None
    notes: tuple[str, ...] = ()
    all_ignored: bool = False
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.images)

    @property
    def files(self) -> list[Path]:
        """The file of each image."""
        return list(self.images)

    def update(self, digest: Any) -> None:
        """Add the files' names to ``digest``, of hashlib."""
        pairs = zip(self.images, self.masks, strict=True)
        names = "\0".join(f"{image.name}/{mask.name}" for image, mask in pairs)
        digest.update(names.encode(errors="surrogateescape"))

    def about_labels(self) -> str:
        """What a label is, in words."""
        return "a class for every pixel"

    def check(self, where: str) -> None:
        """Raises UserError for a split, called ``where``, in which no pixel can be trained on or scored."""
        if not len(self):
            raise UserError(f"{where} holds no image")
        if self.all_ignored:
            raise UserError(f"every pixel of {where} is ignored, so there is nothing to train on or to score")

    def read_mask(self, index: int) -> Image.Image:
        """The mask at ``index`` as classes, 8 bits, 255 where ignored. Raises UserError for one that is wrong."""
        image, path = self.images[index], self.masks[index]
        if not path.is_file():
            raise UserError(f"the mask {path} of the image {image.name} is missing")
        try:
            with Image.open(path) as mask:
                mode = mask.mode
                values = np.asarray(mask)
        except Exception as error:  # damaged bytes end the decoders in many ways
            raise UserError(f"cannot read the mask {path} ({first_line(error)})") from None
        if mode not in ("L", "P", "1", "I;16", "I"):
            raise UserError(f"the mask {path} has colours ({mode}); it must hold one class index per pixel")
        values, last = values.astype(np.int64), len(self.labels) - 1
        classes = np.asarray(self.labels)[values.clip(0, last)]
        classes[(values < 0) | (values > last)] = -1
        if (classes < 0).any():
            unknown = int(values[classes < 0].min())
            raise UserError(
                f"the mask {path} holds the label {unknown}, which is not one of the {len(self.classes)} classes"
            )
        return Image.fromarray(classes.astype(np.uint8))


def checked(split: SegmentationSet, bad: BadItems, verify: str = "cached") -> SegmentationSet:
    """``split``, with every image and mask decoded once; ``bad`` counts the pairs that are left out.

    Raises UserError, naming the file, for a missing or damaged image or mask, a mask of another size than its image and
    an unknown label, unless ``bad`` skips it.
    """

    def look(index: int) -> tuple[tuple[int, int], bool] | UserError:
        """Size of a mask, and whether any of its pixels counts."""
        try:
            mask = split.read_mask(index)
        except UserError as error:
            return error
        return mask.size, bool((np.asarray(mask) != IGNORE).any())

    kept, counted = [], False
    with ThreadPoolExecutor(8) as pool:
        masks = pool.map(look, range(len(split)))
        images = examined(split.images, verify, split.max_pixels)
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            if not split.images[index].is_file():
                bad.annotation(f"the image {split.images[index]} is missing")
            elif isinstance(mask, UserError):
                bad.annotation(str(mask))
            elif isinstance(image, UserError):
                bad.image(str(image))
            elif mask[0] != image:
                found, stated = "{} x {}".format(*mask[0]), "{} x {}".format(*image)
                bad.annotation(f"the mask {split.masks[index]} has {found} pixels, but its image has {stated}")
            else:
                kept.append(index)
                counted = counted or mask[1]
    if not kept:
        raise UserError("no image of this data set can be used" if len(split) else "this data set holds no image")
    return dataclasses.replace(
        split,
        images=tuple(split.images[i] for i in kept),
        masks=tuple(split.masks[i] for i in kept),
        notes=(*split.notes, *bad.notes(split.images[0].parent.name)),
        all_ignored=not counted,
    )


def label_table(classes: int, *, ignored: Iterable[int] = (IGNORE,), first: int = 0) -> tuple[int, ...]:
    """The table of a mask whose values ``first`` .. are the ``classes``, and whose values ``ignored`` do not count.

    Raises UserError for more classes than 8 bits hold.
    """
    if classes > IGNORE:
        raise UserError(f"there are {classes} classes, but a mask can hold at most {IGNORE}")
    table = [-1] * 256
    table[first : first + classes] = range(classes)
    for value in ignored:
        table[value] = IGNORE
    return tuple(table)
