"""Verify image files before a run: find unreadable ones, and images that are in two splits."""

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
from mixskd.data.images import MAX_PIXELS, check_image
from mixskd.data.verify_cache import FILE, VerifyCache
from mixskd.data.verify_progress import progress
from mixskd.errors import UserError
from mixskd.runtime.distributed import usable_cores

FEW = 256  # files that one process reads sooner than others have started
AT_ONCE = 64  # files in a request to a worker
SAVE_EVERY = 10.0  # seconds, so that little is read again after an interruption


def verified(
    splits: Mapping[str, ImageSet], *, skip_bad: bool = False, mode: str = "cached", max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, ImageSet], list[str]]:
    """``splits`` (of files) without unreadable images and with the digests of their files, and notes for a person.

    ``mode`` is ``cached``, ``full`` or ``headers``, as in ``data.verify``; ``headers`` finds no digests. Raises
    UserError for an unreadable image without ``skip_bad``, and for a class that has no other.
    """
    result: dict[str, ImageSet] = {}
    bad: list[Path] = []
    notes: list[str] = []
    for name, images in splits.items():
        assert isinstance(images.images, FileList)
        if mode == "headers":
            found = np.zeros(len(images), FILE)
            for i, pixels, _ in _read(images.images, np.arange(len(images)), max_pixels, headers=True):
                found["pixels"][i] = pixels
        else:
            found = examine(images.images, max_pixels, notes, renew=mode == "full")
        fine = found["pixels"] > 0
        bad += [images.images[i] for i in np.flatnonzero(~fine).tolist()]
        if bad and not skip_bad:
            raise UserError(f"cannot read the image {bad[0]}; repair or remove it, or --skip-bad-images")
        labels = images.labels
        if labels.ndim == 1 and (empty := sorted(set(labels.tolist()) - set(labels[fine].tolist()))):
            first = images.images[int(np.argmax(labels == empty[0]))]
            raise UserError(f"the class folder {first.parent} holds no readable image; add some or remove the folder")
        digests = None if mode == "headers" else np.ascontiguousarray(found["digest"])
        known = dataclasses.replace(images, digests=digests)
        result[name] = known if fine.all() else known.subset(np.flatnonzero(fine))
    if bad:
        notes.append(f"left out {len(bad)} unreadable image{'s' * (len(bad) > 1)}, the first {bad[0]}")
    return result, notes


def examine(files: FileList, max_pixels: int, notes: list[str], *, renew: bool = False) -> np.ndarray:
    """The records of ``files`` (:data:`FILE`, ``N``): from the cache, or else by reading them with all cores.

    One process of this user reads at a time; others wait and take its results. ``renew`` ignores older results.
    """
    started = time.time()
    found = np.zeros(len(files), FILE)
    found["size"], found["time"] = _sizes_and_times(files)
    cache = VerifyCache()
    since = started if renew else 0
    if len(_fill(files, found, cache, since, max_pixels)):
        with cache.only_writer(_say_that_it_waits):
            missing = _fill(files, found, cache, since, max_pixels)
            if len(missing):
                _read_and_store(files, found, missing, cache, max_pixels)
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


def _fill(files: FileList, found: np.ndarray, cache: VerifyCache, since: float, max_pixels: int) -> np.ndarray:
    """Complete those records of ``found`` that ``cache`` has; the indices of the others."""
    missing = found["pixels"] == 0
    for folder, here, names in _by_folder(files, np.flatnonzero(missing)):
        known_names, known = cache.files(folder, since)
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


def _read_and_store(
    files: FileList, found: np.ndarray, missing: np.ndarray, cache: VerifyCache, max_pixels: int
) -> None:
    """Read the files ``missing`` (indices) into ``found``, and store in ``cache`` what is readable."""
    saved = done = 0
    last = time.monotonic()

    def save() -> None:
        part = missing[saved:done]
        for folder, here, names in _by_folder(files, part[found["pixels"][part] > 0]):
            cache.add_files(folder, names, found[here])

    with progress("verifying images", len(missing)) as show:
        try:
            for i, pixels, digest in _read(files, missing, max_pixels):
                found["pixels"][i], found["digest"][i] = pixels, np.void(digest)
                done += 1
                if done % AT_ONCE == 0:
                    show(done)
                    if time.monotonic() - last > SAVE_EVERY:
                        save()
                        saved, last = done, time.monotonic()
        finally:
            save()
    for folder, _, _ in _by_folder(files, missing):
        cache.merge(folder)


def _read(
    files: FileList, chosen: np.ndarray, max_pixels: int, *, headers: bool = False
) -> Iterator[tuple[int, int, bytes]]:
    """Index, pixels (0 if unreadable) and digest of each of the files ``chosen``, in order."""
    cores = usable_cores()
    requests = [chosen[i : i + AT_ONCE].tolist() for i in range(0, len(chosen), AT_ONCE)]
    loader = DataLoader(
        Reader(files, max_pixels, headers), batch_sampler=requests, collate_fn=list,
        num_workers=cores if cores > 1 and len(chosen) > FEW else 0,
        generator=torch.Generator(),  # not the global one, on which the weights depend
    )  # fmt: skip
    for results in loader:
        yield from results


class Reader(Dataset[tuple[int, int, bytes]]):
    """Index, pixels and digest of a file by its index: by reading all of it, or only its header."""

    def __init__(self, files: FileList, max_pixels: int, headers: bool) -> None:
        self.files, self.max_pixels, self.headers = files, max_pixels, headers

    def __getitem__(self, index: int) -> tuple[int, int, bytes]:
        path = self.files[index]
        try:
            if self.headers:
                return index, check_image(path, max_pixels=self.max_pixels, header_only=True), b""
            content = path.read_bytes()
            pixels = check_image(path, content, max_pixels=self.max_pixels)
        except (OSError, UserError):
            return index, 0, b""
        return index, pixels, hashlib.blake2b(content, digest_size=16).digest()


def _say_that_it_waits() -> None:
    if os.environ.get("RANK", "0") == "0":
        print("another process verifies images; waiting for it", file=sys.stderr, flush=True)


def without_duplicates(splits: Mapping[str, ImageSet], duplicates: str) -> tuple[ImageSet, list[str]]:
    """The training images, and a note on those whose file is also in another split; ``drop`` leaves them out.

    Raises UserError for one if ``duplicates`` is ``error``.
    """
    train = splits["train"]
    if train.digests is None:
        return train, []
    others = [split for name, split in splits.items() if name != "train" and split.digests is not None]
    if not others:
        return train, []
    shared = np.isin(_halves(train.digests), np.concatenate([_halves(split.digests) for split in others]))  # type: ignore[arg-type]
    place = {digest.tobytes(): (split, i) for split in others for i, digest in enumerate(split.digests)}  # type: ignore[arg-type]
    double = [i for i in np.flatnonzero(shared).tolist() if train.digests[i].tobytes() in place]
    if not double:
        return train, []
    split, i = place[train.digests[double[0]].tobytes()]
    example = f"{train.images[double[0]]} and {split.images[i]}"
    found = f"{len(double)} training image{'s' * (len(double) > 1)} also in val or test, such as {example}"
    if duplicates == "error":
        raise UserError(f"there {'is' if len(double) == 1 else 'are'} {found}; remove them, or --data.duplicates drop")
    if duplicates == "drop":
        return train.subset(np.setdiff1d(np.arange(len(train)), double)), [f"left out {found}"]
    return train, [f"{found}: scores are too high; see --data.duplicates"]


def _halves(digests: np.ndarray) -> np.ndarray:
    """The first eight bytes of each digest as a number, which can be sorted fast."""
    return np.ascontiguousarray(digests).view("<u8")[::2]
