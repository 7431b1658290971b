"""A manifest: a ``.csv`` or ``.parquet`` file with one image a row (path, label or labels, perhaps split and group)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import NAMES
from mixskd.errors import UserError, nearest

SUFFIXES = (".csv", ".parquet")
SPLIT_OF = {alias: split for split, names in NAMES.items() for alias in (*names, split)} | {"training": "train"}


def load_manifest(path: Path, image_size: int, group: str | None = None) -> DataBundle:
    """The images that ``path`` lists, relative to its folder. The columns are ``path``, ``label`` (a name or a number),
    ``split`` (``train``, ``val`` or ``test``; all ``train`` without it), and ``group``: the column that holds groups.

    Where an image may have several labels, ``labels`` holds their names, separated by ``;``. Or there is neither
    column, and each column but those above is a class with 0 or 1 in each row.

    Raises UserError, with the row's number, for a missing column or value, a missing file, a file outside the folder,
    a split or a label that is not known, or a group in two splits.
    """
    rows = read_rows(path)
    columns = list(rows[0]) if rows else []
    several = "labels" if "labels" in columns else "columns" if _are_classes(rows, group) else ""
    for column in ("path", *([] if several else ["label"]), *([group] if group else [])):
        if not rows or column not in rows[0]:
            known = [str(name) for name in rows[0]] if rows else []
            raise UserError(f"{path} has no column {column!r}{nearest(column, known)}; it has: {', '.join(known)}")
    root = path.parent.resolve()
    by_split: dict[str, list[tuple[Path, tuple[str, ...], str]]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number}"
        file = checked_file(root, str(row["path"] or ""), where)
        if several == "columns":
            names = tuple(name for name in _classes(columns, group) if MARKS[str(row[name]).strip().lower()])
        elif several:
            names = _names(row["labels"])
        else:
            names = (str(row["label"]).strip() if row["label"] is not None else "",)
            if not names[0]:
                raise UserError(f"{where}: the label is empty; give a class")
        split = SPLIT_OF.get(str(row.get("split") or "train").strip().lower())
        if split is None:
            raise UserError(f"{where}: the split {row['split']!r} is not known; use train, val or test")
        by_split.setdefault(split, []).append((file, names, str(row[group]) if group else ""))
    if "train" not in by_split:
        raise UserError(f"{path} lists no training image; set the column split to train, or leave it out")
    classes = ordered({name for _, names, _ in by_split["train"] for name in names})
    if several == "columns":
        classes = _classes(columns, group)
    for split, entries in by_split.items():
        if strange := sorted({name for _, names, _ in entries for name in names} - set(classes)):
            raise UserError(f"{path}: the {split} images have a label that the training images lack: {strange[0]}")
    splits = {
        split: ImageSet(
            FileList.of(file for file, _, _ in entries),
            _as_labels([names for _, names, _ in entries], classes, several=bool(several)),
            np.asarray([name for _, _, name in entries]) if group else None,
        )
        for split, entries in by_split.items()
    }
    return DataBundle(splits, classes, Preprocess(image_size), source=path.parent)


MARKS = {"1": True, "true": True, "0": False, "false": False, "": False, "1.0": True, "0.0": False}


def _classes(columns: Sequence[str], group: str | None) -> tuple[str, ...]:
    """The columns that are neither ``path``, ``split`` nor ``group``."""
    return tuple(name for name in columns if name not in ("path", "split", group))


def _are_classes(rows: Sequence[Mapping[str, object]], group: str | None) -> bool:
    """Whether two or more columns are classes with 0 or 1 in each row, and none is called ``label``."""
    names = _classes(list(rows[0]), group) if rows else ()
    marks = (str(row[name]).strip().lower() in MARKS for row in rows for name in names)
    return len(names) > 1 and not {"label", "labels"} & set(names) and all(marks)


def _names(value: object) -> tuple[str, ...]:
    """The names in ``a;b``, or in a list of a ``.parquet`` file; none if it is empty."""
    parts = value if isinstance(value, list) else str(value if value is not None else "").split(";")
    return tuple(name for part in parts if (name := str(part).strip()))


def _as_labels(names: Sequence[Sequence[str]], classes: Sequence[str], *, several: bool) -> np.ndarray:
    """The labels of images with these ``names``: ``N`` indices, or ``N x C`` of 0 and 1."""
    index = {name: i for i, name in enumerate(classes)}
    if not several:
        return np.asarray([index[name] for (name,) in names], dtype=np.int64)
    labels = np.zeros((len(names), len(classes)), dtype=np.uint8)
    for row, of_image in zip(labels, names, strict=True):
        row[[index[name] for name in of_image]] = 1
    return labels


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


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a ``.csv`` (UTF-8, with a header) or a ``.parquet`` file. Raises UserError if it cannot be read."""
    try:
        if path.suffix == ".parquet":
            return parquet_rows(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [dict(row) for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None


def parquet_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a ``.parquet`` file by pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install 'mixskd[parquet]'") from None
    try:
        rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None
    return rows
