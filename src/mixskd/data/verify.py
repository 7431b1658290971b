"""Read every file once before a run, to find unreadable images and images that are in two splits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mixskd.data.bundle import ImageSet
from mixskd.data.images import check_image
from mixskd.errors import UserError


def read_digest(path: Path) -> tuple[bool, str]:
    """Whether the image at ``path`` is readable to its end, and a digest of its bytes."""
    try:
        content = path.read_bytes()
    except OSError:
        return False, ""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        check_image(path, content)
    except UserError:
        return False, digest
    return True, digest


def verified(splits: Mapping[str, ImageSet], *, skip_bad: bool = False) -> tuple[dict[str, ImageSet], list[str]]:
    """``splits`` (of files) without unreadable images and with the digests of their files, and notes for a person.

    Raises UserError for an unreadable image without ``skip_bad``, and for a class that has no other.
    """
    result: dict[str, ImageSet] = {}
    bad: list[Path] = []
    with ThreadPoolExecutor() as pool:
        for name, images in splits.items():
            found = list(pool.map(read_digest, images.images))
            fine = np.array([readable for readable, _ in found], dtype=bool)
            bad += [images.images[i] for i in np.flatnonzero(~fine).tolist()]
            if bad and not skip_bad:
                raise UserError(f"cannot read the image {bad[0]}; repair or remove it, or --skip-bad-images")
            if empty := sorted(set(images.labels.tolist()) - set(images.labels[fine].tolist())):
                first = images.images[int(np.argmax(images.labels == empty[0]))]
                raise UserError(
                    f"the class folder {first.parent} holds no readable image; add some or remove the folder"
                )
            digests = np.asarray([digest for _, digest in found])
            result[name] = dataclasses.replace(images, digests=digests).subset(np.flatnonzero(fine))
    if not bad:
        return result, []
    return result, [f"left out {len(bad)} unreadable image{'s' * (len(bad) > 1)}, the first {bad[0]}"]


def without_duplicates(splits: Mapping[str, ImageSet], duplicates: str) -> tuple[ImageSet, list[str]]:
    """The training images, and a note on those whose file is also in another split; ``drop`` leaves them out.

    Raises UserError for one if ``duplicates`` is ``error``.
    """
    train = splits["train"]
    if train.digests is None:
        return train, []
    others = [split for name, split in splits.items() if name != "train" and split.digests is not None]
    image_of = {digest: split.images[i] for split in others for i, digest in enumerate(split.digests.tolist())}  # type: ignore[union-attr]
    double = [i for i, digest in enumerate(train.digests.tolist()) if digest in image_of]
    if not double:
        return train, []
    example = f"{train.images[double[0]]} and {image_of[train.digests[double[0]]]}"
    found = f"{len(double)} training image{'s' * (len(double) > 1)} also in val or test, such as {example}"
    if duplicates == "error":
        raise UserError(f"there {'is' if len(double) == 1 else 'are'} {found}; remove them, or --data.duplicates drop")
    if duplicates == "drop":
        return train.subset(np.setdiff1d(np.arange(len(train)), double)), [f"left out {found}"]
    return train, [f"{found}: scores are too high; see --data.duplicates"]
