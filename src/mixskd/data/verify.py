"""Reads every file once before a run begins, to find files that cannot be read and files that are in two splits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixskd.data.bundle import ImageSet
from mixskd.data.images import check_image
from mixskd.errors import UserError


class Look(NamedTuple):
    """What a file is: readable to its end, and a digest of its bytes."""

    readable: bool
    digest: str


def look(path: Path) -> Look:
    """Read ``path`` once."""
    try:
        content = path.read_bytes()
    except OSError:
        return Look(False, "")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        check_image(path, content)
    except UserError:
        return Look(False, digest)
    return Look(True, digest)


def verified(splits: Mapping[str, ImageSet], *, skip_bad: bool = False) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """``splits`` (of files) without unreadable images, each with the digests of its files; and notes.

    Raises UserError for an unreadable image without ``skip_bad``, and for a class that has no other.
    """
    result: dict[str, ImageSet] = {}
    bad: list[Path] = []
    with ThreadPoolExecutor() as pool:
        for name, images in splits.items():
            looks = list(pool.map(look, images.images))
            fine = np.array([seen.readable for seen in looks], dtype=bool)
            bad += [images.images[i] for i in np.flatnonzero(~fine).tolist()]
            if bad and not skip_bad:
                raise UserError(f"cannot read the image {bad[0]}; repair or remove it, or --skip-bad-images")
            if empty := sorted(set(images.labels.tolist()) - set(images.labels[fine].tolist())):
                first = images.images[int(np.argmax(images.labels == empty[0]))]
                raise UserError(
                    f"the class folder {first.parent} holds no readable image; add some or remove the folder"
                )
            known = dataclasses.replace(images, digests=np.asarray([seen.digest for seen in looks]))
            result[name] = known if fine.all() else known.subset(np.flatnonzero(fine))
    if not bad:
        return result, ()
    return result, (f"left out {len(bad)} unreadable image{'s' * (len(bad) > 1)}, the first {bad[0]}",)


def without_twins(splits: Mapping[str, ImageSet], duplicates: str) -> tuple[ImageSet, tuple[str, ...]]:
    """The training images, and notes on those whose file is also in another split; ``drop`` leaves them out.

    Raises UserError for one if ``duplicates`` is ``error``.
    """
    train = splits["train"]
    if train.digests is None:
        return train, ()
    others = [split for name, split in splits.items() if name != "train" and split.digests is not None]
    elsewhere = {digest: split.images[i] for split in others for i, digest in enumerate(split.digests.tolist())}  # type: ignore[union-attr]
    twins = [i for i, digest in enumerate(train.digests.tolist()) if digest in elsewhere]
    if not twins:
        return train, ()
    example = f"{train.images[twins[0]]} and {elsewhere[train.digests[twins[0]]]}"
    found = f"{len(twins)} training image{'s' * (len(twins) > 1)} also in val or test, such as {example}"
    if duplicates == "error":
        raise UserError(f"there {'is' if len(twins) == 1 else 'are'} {found}; remove them, or --data.duplicates drop")
    if duplicates == "drop":
        return train.subset(np.setdiff1d(np.arange(len(train)), twins)), (f"left out {found}",)
    return train, (f"{found}: scores are too high; see --data.duplicates",)
