"""Images with a class index for every pixel, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.bad_annotations import BadItems

IGNORE = 255


@dataclass(frozen=True)
class SegmentationSet:
    """One split: ``images`` and their ``masks`` (files), the names of the classes, and how a mask is read.

    ``labels[v]`` is the class of a pixel of value v: 0 to N - 1, 255 for a pixel that is ignored, or -1 for a value
    that no mask may hold. ``released_classes`` is the number of outputs over which the paper's released code averages,
    where that is another one (COCO-Stuff).
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    released_classes: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def read_mask(self, index: int) -> Image.Image:
        """The mask at ``index`` as classes, 8 bits, 255 where ignored. Raises UserError for one that is wrong."""
        found = self.problem(index)
        if isinstance(found, str):
            raise UserError(found)
        return found

    def problem(self, index: int) -> Image.Image | str:
        """The mask at ``index`` as classes, or what is wrong with it in one line that names the file."""
        image, path = self.images[index], self.masks[index]
        if not path.is_file():
            return f"the mask {path} of the image {image.name} is missing"
        try:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P", "1", "I;16", "I"):
                    return f"the mask {path} has colours ({mask.mode}); it must hold one class index per pixel"
                values = np.asarray(mask).astype(np.int64)
        except (OSError, ValueError, SyntaxError) as error:
            return f"cannot read the mask {path} ({str(error).splitlines()[0]})"
        table = np.full(max(len(self.labels), int(values.max(initial=0)) + 1), -1)
        table[: len(self.labels)] = self.labels
        classes = table[values]
        if (classes < 0).any():
            unknown = int(values[classes < 0].min())
            return f"the mask {path} holds the label {unknown}, which is not one of the {len(self.classes)} classes"
        return Image.fromarray(classes.astype(np.uint8))


def checked(split: SegmentationSet, *, skip_bad: bool = False, threads: int = 8) -> SegmentationSet:
    """``split``, with every pair of files read once.

    Raises UserError, naming the file, for a missing or unreadable image or mask, a mask of another size than its image
    and an unknown label; with ``skip_bad`` such pairs are left out and counted in ``notes``.
    """
    bad, kept = BadItems(skip_bad), []
    with ThreadPoolExecutor(threads) as pool:
        for index, problem in enumerate(pool.map(lambda i: _pair_problem(split, i), range(len(split)))):
            if problem is None:
                kept.append(index)
            else:
                bad.report(problem)
    if not kept:
        raise UserError("no image of this data set has a usable mask" if bad.found else "this data set holds no image")
    where = split.images[0].parent.name
    return replace(
        split,
        images=tuple(split.images[i] for i in kept),
        masks=tuple(split.masks[i] for i in kept),
        notes=(*split.notes, *bad.notes(where)),
    )


def _pair_problem(split: SegmentationSet, index: int) -> str | None:
    image = split.images[index]
    if not image.is_file():
        return f"the image {image} is missing"
    mask = split.problem(index)
    if isinstance(mask, str):
        return mask
    try:
        with Image.open(image) as opened:
            size = opened.size
    except (OSError, ValueError, SyntaxError) as error:
        return f"cannot read the image {image} ({str(error).splitlines()[0]})"
    if size != mask.size:
        return (
            f"the mask {split.masks[index]} has {mask.size[0]} x {mask.size[1]} pixels, "
            f"but its image has {size[0]} x {size[1]}"
        )
    return None


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
