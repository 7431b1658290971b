"""``hf:FOLDER``: data sets of the Hugging Face hub's kind on this disk, by the package ``datasets``.

Its tables are memory-mapped and read at any place, so the images are shuffled, divided and resumed like files. Nothing
is downloaded, and no code in the folder is executed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixskd.data.bundle import SPLITS, DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import NAMES
from mixskd.data.sources.manifest import as_labels, ordered
from mixskd.errors import UserError, first_line, nearest
from mixskd.runtime.packages import needed

HUB = "hf:"
PART = 10_000  # rows whose verification is stored at once
IMAGES, LABELS = ("image", "img", "pixel_values"), ("label", "labels", "fine_label", "class", "target")


class Row(NamedTuple):
    """An encoded image of a table."""

    rows: Rows
    number: int

    def read(self) -> bytes:
        """The bytes of the image's file. Raises UserError if the row has none."""
        content = (self.rows.table[self.number][self.rows.column] or {}).get("bytes")
        if content is None:
            raise UserError(f"{self} has no image; save the data set with its images inside")
        return bytes(content)

    def __str__(self) -> str:
        return f"{self.rows.name}/{self.number}"


class Rows(Sequence[Row]):
    """The images in a ``column`` of a ``table`` of datasets, or those at ``indices``; ``name`` is folder and split."""

    def __init__(self, table: Any, column: str, name: str, indices: np.ndarray) -> None:
        self.table, self.column, self.name, self.indices = table, column, name, indices

    @property
    def parts(self) -> list[tuple[Path, str, int]]:
        """Of each few thousand rows a path that names them, the stamp of the table's files, and where they end."""
        files = [os.stat(file["filename"]) for file in self.table.cache_files]
        stamp = " ".join(f"{file.st_size} {file.st_mtime_ns}" for file in files)
        ends = [*range(PART, len(self), PART), len(self)]
        return [(Path(f"{self.name}:{self.column}:{end}"), stamp, end) for end in ends]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice | np.ndarray):
            return Rows(self.table, self.column, self.name, self.indices[index])
        return Row(self, int(self.indices[index]))


def load_hub(
    source: str,
    image_size: int,
    *,
    columns: Sequence[str] = (),
    split_names: Sequence[str] = (),
    group: str | None = None,
) -> DataBundle:
    """The images in the folder of ``hf:FOLDER``: what ``save_to_disk`` wrote, or a repository of parquet or image
    files.

    ``columns`` are those of image and label, ``split_names`` the splits that become ``train``, ``val`` and ``test``;
    usual names if empty. ``group`` is a column too. A label is a class, or a list of classes where an image may have
    several. A split whose labels are all hidden (-1) is left out. Raises UserError if datasets or the folder is
    missing, or a column, a split, or a row's label.
    """
    path = Path(source.removeprefix(HUB)).expanduser()
    tables = {own: table for own, table in _chosen(_tables(path), split_names, path).items() if len(table)}
    if not tables:
        raise UserError(f"{path} holds no images")
    first, notes = next(iter(tables.values())), []
    image = _column(first, columns[0] if columns else None, IMAGES, path, "image")
    label = _column(first, columns[1] if len(columns) > 1 else None, LABELS, path, "label")
    several = hasattr(first.features[label], "feature")
    kind = first.features[label].feature if several else first.features[label]
    known, found = getattr(kind, "names", None), {}
    for split, table in tables.items():
        values = list(table[label])
        if any(value != -1 for value in values):
            found[split] = [_names(v, known, f"{path}/{split}/{i}") for i, v in enumerate(values)]
        else:
            notes.append(f"the images of {split} are left out, since they have no labels")
    classes = tuple(known or ordered({name for names in next(iter(found.values()), []) for name in names}))
    if strange := {name for values in found.values() for names in values for name in names} - set(classes):
        raise UserError(f"{path}: a label is not among those of the training images: {sorted(strange)[0]}")
    splits = {}
    for split, table in ((split, tables[split]) for split in found):
        groups = None if group is None else np.asarray(list(map(str, table[_column(table, group, (), path, "group")])))
        encoded = table.cast_column(image, needed("datasets", "hf").Image(decode=False)).select_columns([image])
        splits[split] = ImageSet(
            _images(encoded, image, path, split), as_labels(found[split], classes, several=several), groups
        )
    return DataBundle(splits, classes, Preprocess(image_size), notes=tuple(notes))


def _images(table: Any, column: str, folder: Path, split: str) -> Rows | FileList:
    """The images of ``table``, or their files where it has no image but only paths. Raises UserError for a path that is
    not in ``folder``.
    """
    if any(len(chunk) > chunk.field("bytes").null_count for chunk in table.data.column(column).chunks):
        return Rows(table, column, f"{folder}/{split}", np.arange(len(table)))
    files = [os.path.normpath((cell or {}).get("path") or "") for cell in table[column]]
    for i, file in enumerate(files):
        if not {folder.absolute(), folder.resolve()} & set(Path(file).parents):
            raise UserError(f"{folder}/{split}/{i} has no image, and no file in {folder}; "
                            "save the data set with its images inside")  # fmt: skip
    return FileList.of(files)


def _names(value: Any, known: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The names of a label, or of a list of labels; ``known`` are those of its numbers."""
    values = value if isinstance(value, list) else [value]
    if any(v is None or v == -1 for v in values):
        raise UserError(f"{where} has no label; remove the row, or label it")
    if known is None:
        return tuple(map(str, values))
    if strange := [v for v in values if not 0 <= v < len(known)]:
        raise UserError(f"{where} has the label {strange[0]}, but there are {len(known)} classes")
    return tuple(known[v] for v in values)


def _tables(path: Path) -> dict[str, Any]:
    """The tables in ``path`` by the names of their splits."""
    if not path.is_dir():
        raise UserError(f"there is no folder {path}; give hf: and a folder, since nothing is downloaded")
    datasets = needed("datasets", "hf")
    datasets.disable_progress_bars()
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            found = datasets.load_from_disk(str(path))
        else:  # the folder as a data set of its own could have a README that names files elsewhere, also on the network
            builder = "parquet" if next(path.rglob("*.parquet"), None) else "imagefolder"
            found = datasets.load_dataset(builder, data_dir=str(path))
    except Exception as error:  # of its builders, of Arrow and of the file system
        raise UserError(f"datasets cannot read {path}: {first_line(error)}") from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _chosen(tables: dict[str, Any], names: Sequence[str], path: Path) -> dict[str, Any]:
    """The tables that are ``train``, ``val`` and ``test``: of the given ``names``, or of usual ones."""
    if names:
        for name in names:
            if name not in tables:
                raise UserError(f"{path} has no split {name!r}{nearest(name, tables)}; it has: {', '.join(tables)}")
        own = ("train", "test") if len(names) == 2 else SPLITS
        return {split: tables[name] for split, name in zip(own, names, strict=False)}
    found = {own: tables[name] for own, usual in NAMES.items() for name in usual if name in tables}
    if not found:
        raise UserError(f"{path} has the splits {', '.join(tables)}; say with --data.split-names which one is train")
    return found


def _column(table: Any, given: str | None, usual: Sequence[str], path: Path, what: str) -> str:
    known = table.column_names
    for name in [given] if given else usual:
        if name in known:
            return name
    hint = nearest(given, known) if given else ""
    raise UserError(f"{path} has no column {given or what!r}{hint}; it has: {', '.join(known)} (--data.columns)")
