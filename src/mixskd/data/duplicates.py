"""Find training images whose file is also in another split, by the digests of the verified files."""

from collections.abc import Mapping

import numpy as np

from mixskd.data.bundle import ImageSet
from mixskd.errors import UserError
from mixskd.errors.text import counted


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
    found = f"{counted(len(double), 'training image')} also in val or test, such as {example}"
    if duplicates == "error":
        raise UserError(f"there {'is' if len(double) == 1 else 'are'} {found}; remove them, or --data.duplicates drop")
    if duplicates == "drop":
        return train.subset(np.setdiff1d(np.arange(len(train)), double)), [f"left out {found}"]
    return train, [f"{found}: scores are too high; see --data.duplicates"]


def _halves(digests: np.ndarray) -> np.ndarray:
    """The first eight bytes of each digest as a number, which can be sorted fast."""
    return np.ascontiguousarray(digests).view("<u8")[::2]
