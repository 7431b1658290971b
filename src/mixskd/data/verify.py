"""One look at every file before a run begins: which cannot be read, and which are in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixskd.data.bundle import ImageSet
from mixskd.data.images import check_image
from mixskd.errors import UserError

DUPLICATES = ("error", "warn", "drop")


class Look(NamedTuple):
    """What a file is: readable to its end, and a digest of its bytes."""

    readable: bool
    digest: bytes


def look(path: Path) -> Look:
    """Read ``path`` once."""
    try:
        content = path.read_bytes()
    except OSError:
        return Look(False, b"")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        check_image(path, content)
    except UserError:
        return Look(False, digest)
    return Look(True, digest)


def verified(
    splits: Mapping[str, ImageSet], *, skip_bad: bool = False, duplicates: str = "warn"
) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """``splits`` (of files) without what must not be trained on, and notes.

    Raises UserError for an unreadable image without ``skip_bad``, and for a file in two splits if ``duplicates`` is
    ``error``; ``drop`` leaves such a file out of the training images, ``warn`` notes it.
    """
    result, notes, bad, digests = dict(splits), [], [], {}
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
            result[name] = images.subset(np.flatnonzero(fine)) if not fine.all() else images
            digests[name] = [seen.digest for seen in looks if seen.readable]
    if bad:
        notes.append(f"left out {len(bad)} unreadable image{'s' * (len(bad) > 1)}, the first {bad[0]}")
    if "train" in result:
        result["train"], found = without_twins(result, digests, duplicates)
        notes += found
    return result, tuple(notes)


def without_twins(
    splits: Mapping[str, ImageSet], digests: Mapping[str, list[bytes]], duplicates: str
) -> tuple[ImageSet, list[str]]:
    """The training images, without those that are also in another split if ``duplicates`` says so; notes on them."""
    train = splits["train"]
    elsewhere = {
        digest: splits[name].images[i]
        for name, found in digests.items()
        if name != "train"
        for i, digest in enumerate(found)
    }
    twins = [i for i, digest in enumerate(digests["train"]) if digest in elsewhere]
    if not twins:
        return train, []
    example = f"{train.images[twins[0]]} and {elsewhere[digests['train'][twins[0]]]}"
    found = f"{len(twins)} training image{'s' * (len(twins) > 1)} also in val or test, such as {example}"
    if duplicates == "error":
        raise UserError(f"there {'is' if len(twins) == 1 else 'are'} {found}; remove them, or --data.duplicates drop")
    if duplicates == "drop":
        keep = np.setdiff1d(np.arange(len(train)), twins)
        return train.subset(keep), [f"left out {found}"]
    return train, [f"{found}: scores are too high; see --data.duplicates"]
