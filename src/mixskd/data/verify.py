"""Verify images of files, shards and tables before a run: find unreadable ones."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mixskd.data.bundle import ImageSet
from mixskd.data.file_list import FileList
from mixskd.data.images import ADVICE, MAX_PIXELS, check_image
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.hub import Row, Rows
from mixskd.data.sources.shards import Member, Members, is_settled
from mixskd.data.verify_cache import FILE, VerifyCache
from mixskd.data.verify_progress import progress
from mixskd.errors import UserError
from mixskd.errors.text import counted
from mixskd.runtime.distributed import usable_cores

FEW = 256  # files that one process reads sooner than others have started
AT_ONCE = 64  # files in a request to a worker
SAVE_EVERY = 10.0  # seconds, so that little is read again after an interruption


def verified(
    splits: Mapping[str, ImageSet],
    *,
    skip_bad: bool = False,
    mode: str = "cached",
    max_pixels: int = MAX_PIXELS,
    wanted: Preprocess | None = None,
) -> tuple[dict[str, ImageSet], list[str]]:
    """``splits`` of files, shards or tables without unreadable images, with the others' digests, and notes to show.

    ``mode`` is ``cached``, ``full`` or ``headers``, as in ``data.verify``; ``headers`` finds no digests. ``wanted``
    says which channels and values the files must have. Raises UserError for an unreadable image without ``skip_bad``,
    and for a class that has no other.
    """
    result: dict[str, ImageSet] = {}
    bad: list[Path | Member | Row] = []
    notes: list[str] = []
    for name, images in splits.items():
        assert isinstance(images.images, FileList | Members | Rows)
        if mode == "headers":
            found = np.zeros(len(images), FILE)
            for i, pixels, _ in _read(Reader(images.images, max_pixels, wanted, headers=True), np.arange(len(images))):
                found["pixels"][i] = pixels
        else:
            found = examine(images.images, max_pixels, notes, wanted, renew=mode == "full")
        fine = found["pixels"] > 0
        bad += [images.images[i] for i in np.flatnonzero(~fine).tolist()]
        if bad and not skip_bad:
            check(bad[0], max_pixels, wanted)  # raises the reason
            raise UserError(f"cannot read the image {bad[0]}; repair or remove it, or --skip-bad-images")
        labels = images.labels
        if labels.ndim == 1 and (
            empty := sorted(set(np.unique(labels).tolist()) - set(np.unique(labels[fine]).tolist()))
        ):
            first = images.images[int(np.argmax(labels == empty[0]))]
            where = f"the class folder {first.parent}" if isinstance(first, Path) else f"class {empty[0]} of {name}"
            raise UserError(f"{where} holds no readable image; add some or remove the class")
        digests = None if mode == "headers" else np.ascontiguousarray(found["digest"])
        known = dataclasses.replace(images, digests=digests)
        result[name] = known if fine.all() else known.subset(np.flatnonzero(fine))
    if bad:
        notes.append(f"left out {counted(len(bad), 'unreadable image')}, the first {bad[0]}")
    return result, notes


def check(image: Path | Member | Row, max_pixels: int, wanted: Preprocess | None) -> tuple[int, bytes]:
    """Pixels of an image, and the digest of its bytes. Raises UserError if it is unreadable."""
    try:
        content = image.read_bytes() if isinstance(image, Path) else image.read()
    except OSError as error:
        raise UserError(f"cannot read the image {image} ({error}){ADVICE}") from None
    pixels = check_image(str(image), content, max_pixels=max_pixels, wanted=wanted)
    return pixels, hashlib.blake2b(content, digest_size=16).digest()


def examine(
    files: FileList | Members | Rows,
    max_pixels: int,
    notes: list[str],
    wanted: Preprocess | None = None,
    *,
    renew: bool = False,
) -> np.ndarray:
    """The records of ``files`` (:data:`FILE`, ``N``): from the cache, or else by reading them with all cores.

    One process of this user reads at a time; others wait and take its results. ``renew`` ignores older results.
    """
    started = time.time()
    found = np.zeros(len(files), FILE)
    cache = VerifyCache("" if wanted is None or wanted.usual else f"{wanted.channels} {wanted.range is None}")
    known: _OfFiles | _OfParts
    known = _OfFiles(files, found, cache) if isinstance(files, FileList) else _OfParts(files, found, cache)
    since = started if renew else 0
    if len(known.fill(since, max_pixels)):
        with cache.only_writer(_say_that_it_waits):
            missing = known.fill(since, max_pixels)
            if len(missing):
                _read_and_store(Reader(files, max_pixels, wanted), found, missing, known)
    cache.close()
    notes += [note for note in cache.notes if note not in notes]
    return found


def _sizes_and_times(files: FileList) -> tuple[np.ndarray, np.ndarray]:
    """Size in bytes (-1 for a file that is missing) and time of the last change in ns, ``N`` each."""

    sizes, times = np.full(len(files), -1), np.zeros(len(files), np.int64)
    for folder, here, names in _by_folder(files, np.arange(len(files))):
        found: list[tuple[int, int]] = []
        try:
            opened = os.open(folder or ".", os.O_RDONLY)
        except OSError:
            continue
        try:
            for name in names:
                try:
                    status = os.stat(name, dir_fd=opened)
                except (OSError, ValueError):
                    found.append((-1, 0))
                else:
                    found.append((status.st_size, status.st_mtime_ns))
        finally:
            os.close(opened)
        sizes[here], times[here] = np.array(found, np.int64).T
    return sizes, times


def _by_folder(files: FileList, chosen: np.ndarray) -> Iterator[tuple[str, np.ndarray, list[bytes]]]:
    """Each folder of the files ``chosen`` (indices), with the indices and the names of its files."""
    if not len(chosen):
        return
    folder = files.folder[chosen]
    order = np.argsort(folder, kind="stable")
    numbers, first = np.unique(folder[order], return_index=True)
    for number, part in zip(numbers.tolist(), np.split(chosen[order], first[1:]), strict=True):
        yield files.folders[number], part, [files.name(start) for start in files.starts[part].tolist()]


class _OfFiles:
    """What the cache knows of ``files``, to complete the records ``found`` (:data:`FILE`, ``N``)."""

    def __init__(self, files: FileList, found: np.ndarray, cache: VerifyCache) -> None:
        self.files, self.found, self.cache = files, found, cache
        found["size"], found["time"] = _sizes_and_times(files)

    def fill(self, since: float, max_pixels: int) -> np.ndarray:
        """Complete the records of what was verified after ``since``; the indices of the others."""
        found = self.found
        missing = found["pixels"] == 0
        for folder, here, names in _by_folder(self.files, np.flatnonzero(missing)):
            known_names, known = self.cache.files(folder, since)
            if names == known_names:
                at = np.arange(len(names))
            else:
                place = {name: i for i, name in enumerate(known_names)}
                at = np.fromiter((place.get(name, -1) for name in names), np.int64, len(names))
            here, at = here[at >= 0], at[at >= 0]
            same = (known["size"][at] == found["size"][here]) & (known["time"][at] == found["time"][here])
            same &= known["pixels"][at] <= max_pixels
            found[here[same]] = known[at[same]]
        return np.flatnonzero(found["pixels"] == 0)

    def save(self, part: np.ndarray) -> None:
        """Store what was found of the files ``part`` (indices)."""
        for folder, here, names in _by_folder(self.files, part[self.found["pixels"][part] > 0]):
            self.cache.add_files(folder, names, self.found[here])

    def finish(self, missing: np.ndarray) -> None:
        """Put the rows of each folder together."""
        for folder, _, _ in _by_folder(self.files, missing):
            self.cache.merge(folder)


class _OfParts:
    """As :class:`_OfFiles`, for the images of shards or of a table in their order: all records of a part are stored at
    once.
    """

    def __init__(self, images: Members | Rows, found: np.ndarray, cache: VerifyCache) -> None:
        paths, self.stamps, self.ends = zip(*images.parts, strict=True)
        self.found, self.cache, kind = found, cache, os.fsdecode(cache.kind)
        self.keys = [path.with_name(f"{path.name}:verified{kind}") for path in paths]

    def _of(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The parts of ``indices`` by number, with the records of all their images."""
        for number in np.unique(np.searchsorted(self.ends, indices, side="right")).tolist():
            yield number, self.found[self.ends[number - 1] if number else 0 : self.ends[number]]

    def fill(self, since: float, max_pixels: int) -> np.ndarray:
        """Complete the records of what was verified after ``since`` (Unix time); the indices of the others."""
        for number, records in self._of(np.flatnonzero(self.found["pixels"] == 0)):
            content = self.cache.shard(self.keys[number], self.stamps[number])
            if content is not None and len(content) == 8 + records.nbytes and np.frombuffer(content[:8])[0] >= since:
                records[:] = np.frombuffer(content[8:], FILE)
        self.found["pixels"][self.found["pixels"] > max_pixels] = 0
        return np.flatnonzero(self.found["pixels"] == 0)

    def save(self, part: np.ndarray, *, partly: bool = False) -> None:
        """Store the parts of the images ``part`` (indices), if all images of one are readable, or ``partly``."""
        for number, records in self._of(part):
            if (partly or records["pixels"].all()) and is_settled(self.stamps[number]):
                content = np.float64(time.time()).tobytes() + records.tobytes()
                self.cache.add_shard(self.keys[number], self.stamps[number], content)

    def finish(self, missing: np.ndarray) -> None:
        """Store the parts that hold unreadable images too."""
        self.save(missing, partly=True)


def _read_and_store(reader: Reader, found: np.ndarray, missing: np.ndarray, known: _OfFiles | _OfParts) -> None:
    """Read the files ``missing`` (indices) into ``found``, and store what is readable."""
    saved = done = 0
    last = time.monotonic()

    with progress("verifying images", len(missing)) as show:
        try:
            for i, pixels, digest in _read(reader, missing):
                found["pixels"][i], found["digest"][i] = pixels, np.void(digest)
                done += 1
                if done % AT_ONCE == 0:
                    show(done)
                    if time.monotonic() - last > SAVE_EVERY:
                        known.save(missing[saved:done])
                        saved, last = done, time.monotonic()
        finally:
            known.save(missing[saved:done])
    known.finish(missing)


def _read(reader: Reader, chosen: np.ndarray) -> Iterator[tuple[int, int, bytes]]:
    """Index, pixels (0 if unreadable) and digest of each of the files ``chosen``, in order."""
    cores = usable_cores()
    requests = [chosen[i : i + AT_ONCE].tolist() for i in range(0, len(chosen), AT_ONCE)]
    loader = DataLoader(
        reader, batch_sampler=requests, collate_fn=list,
        num_workers=cores if cores > 1 and len(chosen) > FEW else 0,
        generator=torch.Generator(),  # not the global one, on which the weights depend
    )  # fmt: skip
    for results in loader:
        yield from results


class Reader(Dataset[tuple[int, int, bytes]]):
    """Index, pixels and digest of a file by its index: by reading all of it, or only its header."""

    def __init__(
        self, files: FileList | Members | Rows, max_pixels: int, wanted: Preprocess | None, *, headers: bool = False
    ) -> None:
        self.files, self.max_pixels, self.wanted, self.headers = files, max_pixels, wanted, headers

    def __getitem__(self, index: int) -> tuple[int, int, bytes]:
        image = self.files[index]
        try:
            if self.headers and isinstance(image, Path):
                return index, check_image(image, max_pixels=self.max_pixels, header_only=True, wanted=self.wanted), b""
            return index, *check(image, self.max_pixels, self.wanted)
        except UserError:
            return index, 0, b""


def _say_that_it_waits() -> None:
    if os.environ.get("RANK", "0") == "0":
        print("another process verifies images; waiting for it", file=sys.stderr, flush=True)
