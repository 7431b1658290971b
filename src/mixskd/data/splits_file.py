"""splits.csv of a run folder: the images of each split, so that a later evaluation uses exactly those."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.errors import UserError
from mixskd.runtime.files import write_text
from mixskd.runtime.json_file import digest_of_text

HEADER = ["split", "image"]


def write_division(data: DataBundle, path: Path) -> None:
    """Write one line per image: its split, and its path under the source, or its index in an array."""
    write_text(path, _as_text(data))


def division_digest(data: DataBundle) -> str | None:
    """The digest of what :func:`write_division` writes; None if mixskd drew no split of ``data``."""
    return digest_of_text(_as_text(data)) if data.divided else None


def _as_text(data: DataBundle) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for name, split in data.splits.items():
        writer.writerows((name, image) for image in names_of(split, data.source))
    return text.getvalue()


def check_division(data: DataBundle, path: Path) -> None:
    """Raises UserError if the file ``path`` exists and has other splits than ``data``."""
    if path.exists() and (not path.is_file() or _read(path) != _as_text(data)):
        raise UserError(f"{path} is damaged: it has other splits than the run; remove it, and --resume writes it again")


def names_of(images: ImageSet, source: Path | None) -> list[str]:
    """Each image's path under ``source``, or its place among the source's images."""
    if images.in_memory:
        return [str(place) for place in images.places]
    if isinstance(images.images, FileList):
        return list(images.images.texts(source))
    return [str(i.relative_to(source) if source and isinstance(i, Path) else i) for i in images.images]


def divided_as(data: DataBundle, path: Path, summary: Mapping[str, Any] | None = None) -> DataBundle:
    """``data``, undivided, with the images of each split that the file ``path`` names.

    A split that mixskd drew has its images in ``train`` of ``data``; any other has them in its own. ``summary`` is that
    of the run: its ``splits_digest`` is the file's, and older ones have at least the number of images of each split.
    Raises UserError if the file cannot be read or is not the one of the run, or if an image that it names is gone.
    """
    rows = _rows(path, summary or {})
    splits: dict[str, ImageSet] = {}
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


def _read(path: Path) -> str:
    """The text of the file; bytes that are not UTF-8 become lone surrogates. Raises UserError if it is not readable."""
    try:
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _rows(path: Path, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The split and the image of each row. Raises UserError unless the file is whole."""
    text = _read(path)
    damaged = UserError(
        f"{path}, which lists the images of each split, is damaged; copy it again, let train --resume write it again, "
        "or give the images with --data"
    )
    if (digest := summary.get("splits_digest")) is not None and digest != digest_of_text(text):
        raise damaged
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error):
        raise damaged from None
    counts = Counter(row[0] for row in rows if row)
    if header != HEADER or any(len(row) != 2 for row in rows) or not counts or not counts.keys() <= set(SPLITS):
        raise damaged
    if digest is None and (len(set(map(tuple, rows))) < len(rows) or summary.get("splits", counts) != counts):
        raise damaged
    return [(split, image) for split, image in rows]
