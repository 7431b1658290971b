"""The paths of many files in a few arrays, which worker processes share with their parent."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import eq
from pathlib import Path
from typing import overload

import numpy as np

AT_ONCE = 65_536  # Python objects that are held at a time


class FileList(Sequence[Path]):
    """N paths: each file's name (bytes), where the name starts (8 bytes) and the number of its folder (4 bytes).

    One Python object a file would take ten times the memory. Each forked worker would also copy it, because reading an
    object changes its reference count.

    Args:
        folders: each folder as text that ends with ``/``; empty for the current folder.
        folder: the folder of each file (``N`` integers).
        starts: where each file's name starts in ``names`` (``N`` integers).
        names: the files' names, each ended by a zero byte.
    """

    def __init__(self, folders: Sequence[str], folder: np.ndarray, starts: np.ndarray, names: bytes) -> None:
        self.folders, self.folder, self.starts, self._names = tuple(folders), folder, starts, names

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> FileList:
        """The list of ``paths``."""
        made = FileListBuilder()
        for path in paths:
            folder, slash, name = str(path).rpartition("/")
            made.append(folder + slash, name)
        return made.build()

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> FileList: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> Path | FileList:
        if isinstance(index, slice | np.ndarray):
            return FileList(self.folders, self.folder[index], self.starts[index], self._names)
        return Path(self.folders[self.folder[index]] + os.fsdecode(self.name(int(self.starts[index]))))

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileList):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self.texts(), other.texts()))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<FileList of {len(self):,} files>"

    def name(self, start: int) -> bytes:
        """The file's name that starts at ``start``."""
        return self._names[start : self._names.index(b"\0", start)]

    def texts(self, under: Path | None = None) -> Iterator[str]:
        """The paths as text, one after the other; relative to the folder ``under``, if they are inside it."""
        folders = list(self.folders)
        if under is not None:
            for i, folder in enumerate(folders):
                if Path(folder).is_relative_to(under):
                    inside = str(Path(folder).relative_to(under))
                    folders[i] = "" if inside == "." else inside + "/"
        return (folders[i] + os.fsdecode(name) for i, name in self._parts())

    def endings(self) -> Iterator[bytes]:
        """The last two parts of each path, as the file system spells them."""
        ends = [os.fsencode("/".join(f"{folder}x".split("/")[-2:])[:-1]) for folder in self.folders]
        return (ends[i] + name for i, name in self._parts())

    def _parts(self) -> Iterator[tuple[int, bytes]]:
        """The number of the folder, and the name of each file."""
        for i in range(0, len(self), AT_ONCE):
            part = slice(i, i + AT_ONCE)
            for folder, start in zip(self.folder[part].tolist(), self.starts[part].tolist(), strict=True):
                yield folder, self.name(start)


class FileListBuilder:
    """Collects files for a :class:`FileList`, one by one or many of a folder."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._folder, self._starts, self._names = array("i"), array("q"), bytearray()
        self._waiting: list[str] = []  # names whose folders are noted already

    def __len__(self) -> int:
        return len(self._folder)

    def append(self, folder: str, name: str) -> None:
        """Append the file ``name`` of ``folder``, which is empty or ends with ``/``."""
        number = self._numbers.get(folder)
        if number is None:
            number = self._numbers[folder] = len(self._numbers)
        self._folder.append(number)
        self._waiting.append(name)
        if len(self._waiting) == AT_ONCE:
            self._pack()

    def add(self, folder: str, names: Sequence[str]) -> None:
        """Append the files ``names`` of ``folder``, which is empty or ends with ``/``."""
        if names:
            self._folder.extend([self._numbers.setdefault(folder, len(self._numbers))] * len(names))
            self._waiting += names
            self._pack()

    def _pack(self) -> None:
        if self._waiting:
            joined = os.fsencode("\0".join(self._waiting) + "\0")
            ends = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
            self._starts.frombytes((len(self._names) + np.insert(ends[:-1] + 1, 0, 0)).tobytes())
            self._names += joined
            self._waiting.clear()

    def build(self) -> FileList:
        """The list of all files."""
        self._pack()
        folder, starts = np.array(self._folder, dtype=np.int32), np.array(self._starts, dtype=np.int64)
        return FileList(tuple(self._numbers), folder, starts, bytes(self._names))
