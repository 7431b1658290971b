"""The cache of features on disk, by a digest of everything that they depend on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mixskd.errors import UserError
from mixskd.runtime.files import replacing

MOST_BYTES = 2 * 2**30  # of all kept features together


def cache_folder() -> Path:
    """The folder that ``MIXSKD_FEATURES`` names, or ``features`` in the user's cache folder."""
    if named := os.environ.get("MIXSKD_FEATURES"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mixskd" / "features"


def cached_features(key: str | None, images: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The cached features of ``key`` (``images x D``, fp32), computed and stored if they are not there.

    Without a ``key``, or where the cache cannot be read or written, they are computed each time.
    """
    if key is None:
        return compute()
    path = cache_folder() / f"{key}.npy"
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
        if found.ndim == 2 and len(found) == images and found.dtype == np.float32:
            path.touch()
            return found
    except (OSError, ValueError, EOFError):
        pass
    made = compute()
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        remove_oldest(path.parent)
    except (OSError, UserError):
        pass
    return made


def remove_oldest(folder: Path, most: int = MOST_BYTES) -> None:
    """Remove the least recently used files in ``folder`` until it holds at most ``most`` bytes."""
    files = sorted(((p.stat(), p) for p in folder.glob("*.npy")), key=lambda pair: -pair[0].st_mtime)
    total = 0
    for about, path in files:
        total += about.st_size
        if total > most:
            path.unlink(missing_ok=True)
