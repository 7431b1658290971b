"""A manifest: a ``.csv`` or ``.parquet`` file with one image a row (path, label or labels, perhaps split and group)."""

import csv
import os
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileListBuilder
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import NAMES
from mixskd.errors import UserError, first_line, nearest
from mixskd.runtime.packages import needed

SUFFIXES = (".csv", ".parquet")
SPLIT_OF = {alias: split for split, names in NAMES.items() for alias in (*names, split)} | {"training": "train"}
MARKS = {"1": True, "true": True, "0": False, "false": False, "": False, "1.0": True, "0.0": False}

Cell = str | tuple[str, ...]
"""What a row says of its labels: text, or names that are divided already."""

# Names that other tools give these columns, in lower case.
ALIASES = {
    "path": ("filename", "file", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path"),
    "label": ("class", "class_name", "category", "target"),
    "split": ("subset", "set", "partition"),
}
DELIMITERS = ",;\t|"


class Part:
    """The rows of one split, in little memory: files, the number of each row's cell of labels, and groups."""

    def __init__(self) -> None:
        self.files, self.cells, self.groups = FileListBuilder(), array("q"), list[str]()


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
    names = [str(name) for name in next(rows, ())]
    at, first = {name: i for i, name in enumerate(names)}, next(rows, None)
    marked = _marked(at, first, group)
    for column in ("path", *([] if marked or "labels" in at else ["label"]), *([group] if group else [])):
        if column not in at:
            raise UserError(
                f"{path} has no column {column!r}{nearest(column, names)}; it has: {', '.join(names)}"
                "; name those of path, label and perhaps split: --data.columns A,B"
            )
    places, parts, cells, empty = Places(path.parent.resolve()), dict[str, Part](), dict[Cell, int](), 0
    groups: dict[str, str] = {}  # one text object a group
    in_path, in_label = at["path"], at.get("labels", at.get("label", -1))
    in_split, in_group = at.get("split"), at.get(group or "")
    for number, row in enumerate(chain([] if first is None else [first], rows), start=2):
        folder, name = places.of(str(row[in_path] or ""), path, number)
        try:
            cell: Cell = tuple(c for c, i in marked.items() if MARKS[_text(row[i])]) if marked else _cell(row[in_label])
        except KeyError as error:
            raise UserError(f"{path}, row {number}: {error} is neither 0 nor 1, as a column of a class has") from None
        empty = empty or (0 if cell else number)
        said = "train" if in_split is None else row[in_split]
        split = SPLIT_OF.get(_text(said) or "train")
        if split is None:
            raise UserError(f"{path}, row {number}: the split {said!r} is not known; use train, val or test")
        if (part := parts.get(split)) is None:
            part = parts[split] = Part()
        part.files.append(folder, name)
        part.cells.append(cells.setdefault(cell, len(cells)))
        if in_group is not None:
            part.groups.append(groups.setdefault(str(row[in_group]), str(row[in_group])))
    if "train" not in parts:
        raise UserError(f"{path} lists no training image; set the column split to train, or leave it out")
    several = bool(marked) or "labels" in at or any(isinstance(cell, tuple) or ";" in cell for cell in cells)
    if empty and not several:
        raise UserError(f"{path}, row {empty}: the label is empty; give a class")
    named = [_names(cell, several=several) for cell in cells]
    found = {split: np.array(part.cells, dtype=np.int64) for split, part in parts.items()}
    present = {split: {name for i in np.unique(of).tolist() for name in named[i]} for split, of in found.items()}
    classes = tuple(marked) or ordered(present["train"])
    for split, there in present.items():
        if strange := sorted(there - set(classes)):
            raise UserError(f"{path}: the {split} images have a label that the training images lack: {strange[0]}")
    labels = as_labels(named, classes, several=several)
    splits = {
        split: ImageSet(part.files.build(), labels[found[split]], np.asarray(part.groups) if group else None)
        for split, part in parts.items()
    }
    return DataBundle(splits, classes, Preprocess(image_size), source=path.parent)


def _marked(at: Mapping[str, int], first: Sequence[object] | None, group: str | None) -> dict[str, int]:
    """The columns that are classes with 0 or 1 in each row, if none is called ``label`` and there are two or more."""
    found = {name: i for name, i in at.items() if name not in ("path", "split", group)}
    marks = first is not None and all(_text(first[i]) in MARKS for i in found.values())
    return found if marks and len(found) > 1 and not {"label", "labels"} & set(found) else {}


def _text(value: object) -> str:
    return "" if value is None else str(value).strip().lower()


def _cell(value: object) -> Cell:
    if isinstance(value, list):  # of a .parquet file
        return tuple(text for part in value if (text := str(part).strip()))
    return "" if value is None else str(value).strip()


def _names(cell: Cell, *, several: bool) -> tuple[str, ...]:
    """The names in ``a;b``, or the only one; none if it is empty."""
    parts = cell if isinstance(cell, tuple) else cell.split(";") if several else [cell]
    return tuple(name for part in parts if (name := part.strip()))


def as_labels(names: Sequence[Sequence[str]], classes: Sequence[str], *, several: bool) -> np.ndarray:
    """The labels of images with these ``names``: ``N`` indices, or ``N x C`` of 0 and 1."""
    index = {name: i for i, name in enumerate(classes)}
    if not several:
        return np.asarray([index[name] for (name,) in names], dtype=np.int64)
    labels = np.zeros((len(names), len(classes)), dtype=np.uint8)
    for row, of_image in zip(labels, names, strict=True):
        row[[index[name] for name in of_image]] = 1
    return labels


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


def read_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Sequence[object]]:
    """The column names of mixskd, then the rows, of a ``.csv`` (UTF-8, with a header) or a ``.parquet``, one by one.

    The header of a ``.csv`` shows whether commas, semicolons, tabs or bars divide it. Raises UserError if it cannot be
    read.
    """
    try:
        rows = (_parquet if path.suffix.lower() == ".parquet" else _csv)(path)
        yield renamed(path, [str(name) for name in next(rows)], columns)
        yield from rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the manifest {path}: {first_line(error)}") from None


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


def _csv(path: Path) -> Iterator[Sequence[object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        file.seek(0)
        rows = filter(None, csv.reader(file, strict=True, delimiter=max(DELIMITERS, key=line.count)))
        header = next(rows, [])
        yield header
        for row in rows:
            yield row if len(row) >= len(header) else [*row, *[None] * (len(header) - len(row))]


def _parquet(path: Path) -> Iterator[Sequence[object]]:
    pyarrow, parquet = needed("pyarrow", "parquet"), needed("pyarrow.parquet", "parquet")
    try:
        file = parquet.ParquetFile(path)
        yield file.schema_arrow.names
        for batch in file.iter_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except pyarrow.ArrowException as error:
        raise UserError(f"cannot read the manifest {path}: {first_line(error)}") from None
