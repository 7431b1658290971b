"""splits.csv of a run folder: the images of each split, so that a later evaluation uses exactly those."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.errors import UserError
from mixskd.runtime.files import write_text


def write_division(data: DataBundle, path: Path) -> None:
    """Write one line per image: its split, and its path under the source, or its index in an array."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "image"))
    for name, split in data.splits.items():
        writer.writerows((name, image) for image in names_of(split, data.source))
    write_text(path, text.getvalue())


def names_of(images: ImageSet, source: Path | None) -> list[str]:
    """Each image's path under ``source``, or its place among the source's images."""
    if images.in_memory:
        return [str(place) for place in images.places]
    if isinstance(images.images, FileList):
        return list(images.images.texts(source))
    return [str(i.relative_to(source) if source and isinstance(i, Path) else i) for i in images.images]


def divided_as(data: DataBundle, path: Path) -> DataBundle:
    """``data``, undivided, with the images of each split that the file ``path`` names.

    A split that mixskd drew has its images in ``train`` of ``data``; any other has them in its own. Raises UserError if
    the file cannot be read, or an image that it names is gone.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["split"], row["image"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        raise UserError(
            f"cannot read {path}, which says which images were held out; give the images with --data"
        ) from None
    splits = {}
    for split in SPLITS:
        if named := [image for name, image in rows if name == split]:
            home = data.splits.get(split, data.train)
            place = {name: i for i, name in enumerate(names_of(home, data.source))}
            if missing := [image for image in named if image not in place]:
                raise UserError(
                    f"the image {missing[0]} of {path} is gone; put it back, or give other images with --data"
                )
            splits[split] = home.subset(np.asarray([place[image] for image in named], dtype=np.int64))
    return dataclasses.replace(data, splits=splits, divided=True)
