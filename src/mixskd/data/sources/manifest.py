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


# Names that other tools give these columns, in lower case.
ALIASES = {
    "path": ("filename", "file", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path"),
    "label": ("class", "class_name", "category", "target"),
    "split": ("subset", "set", "partition"),
}
DELIMITERS = ",;\t|"


def load_manifest(path: Path, image_size: int, group: str | None = None, columns: Sequence[str] = ()) -> DataBundle:
    """The images that ``path`` lists, relative to its folder. The columns are ``path``, ``label`` (a name or a number),
    ``split`` (``train``, ``val`` or ``test``; all ``train`` without it), and ``group``: the column that holds groups.
    ``columns`` are other names of ``path``, ``label`` and perhaps ``split``; without them some usual ones are known.

    Where an image may have several labels, ``labels`` (or ``label``) holds their names, separated by ``;``. Or there is
    neither column, and each column but those above is a class with 0 or 1 in each row.

    Raises UserError, with the row's number, for a missing column or value, a missing file, a file outside the folder,
    a split or a label that is not known, or a group in two splits.
    """
    rows = read_rows(path, columns)
    names = list(rows[0]) if rows else []
    several = "names" if _hold_names(rows) else "columns" if _are_classes(rows, group) else ""
    for column in ("path", *([] if several else ["label"]), *([group] if group else [])):
        if not rows or column not in rows[0]:
            raise UserError(
                f"{path} has no column {column!r}{nearest(column, names)}; it has: {', '.join(names)}"
                "; name those of path, label and perhaps split: --data.columns A,B"
            )
    root = path.parent.resolve()
    by_split: dict[str, list[tuple[Path, tuple[str, ...], str]]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number}"
        file = checked_file(root, str(row["path"] or ""), where)
        if several == "columns":
            found = tuple(name for name in _classes(names, group) if MARKS[str(row[name]).strip().lower()])
        else:
            found = _names(row.get("labels", row.get("label")), several=bool(several))
            if not found and not several:
                raise UserError(f"{where}: the label is empty; give a class")
        split = SPLIT_OF.get(str(row.get("split") or "train").strip().lower())
        if split is None:
            raise UserError(f"{where}: the split {row['split']!r} is not known; use train, val or test")
        by_split.setdefault(split, []).append((file, found, str(row[group]) if group else ""))
    if "train" not in by_split:
        raise UserError(f"{path} lists no training image; set the column split to train, or leave it out")
    classes = ordered({name for _, found, _ in by_split["train"] for name in found})
    if several == "columns":
        classes = _classes(names, group)
    for split, entries in by_split.items():
        if strange := sorted({name for _, found, _ in entries for name in found} - set(classes)):
            raise UserError(f"{path}: the {split} images have a label that the training images lack: {strange[0]}")
    splits = {
        split: ImageSet(
            FileList.of(file for file, _, _ in entries),
            _as_labels([found for _, found, _ in entries], classes, several=bool(several)),
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


def _hold_names(rows: Sequence[Mapping[str, object]]) -> bool:
    """Whether a column holds the names of several labels: ``labels``, or ``label`` with a ``;`` or a list in it."""
    values = (row.get("label") for row in rows)
    return bool(rows) and ("labels" in rows[0] or any(isinstance(v, list) or ";" in str(v) for v in values))


def _names(value: object, *, several: bool) -> tuple[str, ...]:
    """The names in ``a;b``, or in a list of a ``.parquet`` file, or the only one; none if it is empty."""
    text = "" if value is None else str(value)
    parts = value if isinstance(value, list) else text.split(";") if several else [text]
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


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[dict[str, object]]:
    """The rows of a ``.csv`` (UTF-8, with a header) or a ``.parquet`` file, with the column names of mixskd.

    The header of a ``.csv`` shows whether commas, semicolons, tabs or bars divide it. Raises UserError if it cannot be
    read.
    """
    try:
        if path.suffix == ".parquet":
            return parquet_rows(path, columns)
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=max(DELIMITERS, key=header.count))
            reader.fieldnames = renamed(path, reader.fieldnames or (), columns)
            return [dict(row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None


def renamed(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """``names`` with ``path``, ``label`` and ``split`` for ``columns``, or for the only name that means one of them.

    Raises UserError for one of ``columns`` that is missing.
    """
    if missing := [column for column in columns if column not in names]:
        raise UserError(f"{path} has no column {missing[0]!r}, which data.columns names{nearest(missing[0], names)}; "
                        f"it has: {', '.join(names)}")  # fmt: skip
    meant = dict(zip(columns, ALIASES, strict=False))
    for column, aliases in ALIASES.items():
        known = [name for name in names if name not in meant and name.strip().lower() in (column, *aliases)]
        if column not in names and column not in meant.values() and len(known) == 1:
            meant[known[0]] = column
    return [meant.get(name, name) for name in names]


def parquet_rows(path: Path, columns: Sequence[str]) -> list[dict[str, object]]:
    """The rows of a ``.parquet`` file by pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install 'mixskd[parquet]'") from None
    try:
        table = parquet.read_table(path)
        rows: list[dict[str, object]] = table.rename_columns(renamed(path, table.column_names, columns)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None
    return rows
