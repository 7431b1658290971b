"""A manifest: a ``.csv`` or ``.parquet`` file with one image a row (path, label, and perhaps split and group)."""

from __future__ import annotations

import csv
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileListBuilder
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import NAMES
from mixskd.errors import UserError, nearest

SUFFIXES = (".csv", ".parquet")
SPLIT_OF = {alias: split for split, names in NAMES.items() for alias in (*names, split)} | {"training": "train"}


class Part:
    """The rows of one split, in little memory: files, the number of each label, and groups."""

    def __init__(self) -> None:
        self.files, self.labels, self.groups = FileListBuilder(), array("q"), list[str]()


def load_manifest(path: Path, image_size: int, group: str | None = None) -> DataBundle:
    """The images that ``path`` lists, relative to its folder. The columns are ``path``, ``label`` (a name or a number),
    ``split`` (``train``, ``val`` or ``test``; all ``train`` without it), and ``group``: the column that holds groups.

    Raises UserError, with the row's number, for a missing column or value, a missing file, a file outside the folder,
    a split or a label that is not known, or a group in two splits.
    """
    rows = read_rows(path)
    columns = [str(name) for name in next(rows, ())]
    at = {name: i for i, name in enumerate(columns)}
    for column in ("path", "label", *([group] if group else [])):
        if column not in at:
            raise UserError(f"{path} has no column {column!r}{nearest(column, columns)}; it has: {', '.join(columns)}")
    places, parts, numbers = Places(path.parent.resolve()), dict[str, Part](), dict[str, int]()
    names: dict[str, str] = {}  # one text object a group
    in_path, in_label, in_split, in_group = at["path"], at["label"], at.get("split"), at.get(group or "")
    for number, row in enumerate(rows, start=2):
        folder, name = places.of(str(row[in_path] or ""), path, number)
        label = "" if row[in_label] is None else str(row[in_label]).strip()
        if not label:
            raise UserError(f"{path}, row {number}: the label is empty; give a class")
        said = "train" if in_split is None else row[in_split]
        split = SPLIT_OF.get(str(said or "train").strip().lower())
        if split is None:
            raise UserError(f"{path}, row {number}: the split {said!r} is not known; use train, val or test")
        if (part := parts.get(split)) is None:
            part = parts[split] = Part()
        part.files.append(folder, name)
        part.labels.append(numbers.setdefault(label, len(numbers)))
        if in_group is not None:
            part.groups.append(names.setdefault(str(row[in_group]), str(row[in_group])))
    if "train" not in parts:
        raise UserError(f"{path} lists no training image; set the column split to train, or leave it out")
    labels, found = [*numbers], {split: np.array(part.labels, dtype=np.int64) for split, part in parts.items()}
    classes = ordered({labels[i] for i in np.unique(found["train"]).tolist()})
    index = {name: i for i, name in enumerate(classes)}
    for split, present in found.items():
        if strange := sorted({labels[i] for i in np.unique(present).tolist()} - set(classes)):
            raise UserError(f"{path}: the {split} images have a label that the training images lack: {strange[0]}")
    as_class = np.array([index.get(name, -1) for name in labels], dtype=np.int64)
    splits = {
        split: ImageSet(part.files.build(), as_class[found[split]], np.asarray(part.groups) if group else None)
        for split, part in parts.items()
    }
    return DataBundle(splits, classes, Preprocess(image_size), source=path.parent)


class Places:
    """Folder and name of files under ``root``; each folder is resolved once, and each file costs one ``lstat``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, str] = {}  # as the manifest names them: with the root before, if they are inside

    def of(self, name: str, manifest: Path, number: int) -> tuple[str, str]:
        """The folder, which ends with ``/``, and the name. Raises UserError as :func:`checked_file` does."""
        folder, _, base = name.rpartition("/")
        text = self.folders.get(folder)
        if text is None:
            text = self.folders[folder] = self._text(folder)
        try:
            if text and base.lower().endswith(EXTENSIONS) and stat.S_ISREG(os.lstat(text + base).st_mode):
                return text, base
        except (OSError, ValueError):
            pass
        file = checked_file(self.root, name, f"{manifest}, row {number}")
        return f"{file.parent}/", file.name

    def _text(self, folder: str) -> str:
        try:
            inside = (self.root / folder).resolve().is_relative_to(self.root)
        except (OSError, ValueError, RuntimeError):
            inside = False
        return f"{self.root / folder}/" if inside else ""


def checked_file(root: Path, name: str, where: str) -> Path:
    """The file ``name`` under ``root``. Raises UserError if it is missing, no image, or outside."""
    file = root / name
    try:
        inside = bool(name) and root in file.resolve().parents
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or links in a circle
        raise UserError(f"{where}: the path {name[:40]!r} cannot be used: {error}") from None
    if not inside:
        raise UserError(f"{where}: the path {name!r} is outside the folder of the manifest; move the image into {root}")
    if file.suffix.lower() not in EXTENSIONS:
        raise UserError(f"{where}: {name} is not an image file; use one of {' '.join(EXTENSIONS)}")
    if not file.is_file():
        raise UserError(f"{where}: there is no image {file}")
    return file


def ordered(labels: set[str]) -> tuple[str, ...]:
    """``labels`` in order: by value if all are whole numbers, else by name."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def read_rows(path: Path) -> Iterator[Sequence[object]]:
    """The names of the columns, then the rows, of a ``.csv`` (UTF-8, with a header) or a ``.parquet`` file, one by one.

    Raises UserError if the file cannot be read.
    """
    try:
        yield from (_parquet if path.suffix.lower() == ".parquet" else _csv)(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None


def _csv(path: Path) -> Iterator[Sequence[object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = filter(None, csv.reader(file, strict=True))
        header = next(rows, [])
        yield header
        for row in rows:
            yield row if len(row) >= len(header) else [*row, *[None] * (len(header) - len(row))]


def _parquet(path: Path) -> Iterator[Sequence[object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install 'mixskd[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        yield file.schema_arrow.names
        for batch in file.iter_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except pyarrow.ArrowException as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None
