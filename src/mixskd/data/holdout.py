"""Hold out a share of a data set, by class and by group."""

from collections.abc import Sequence

import numpy as np

from mixskd.data.bundle import ImageSet
from mixskd.data.labels import strata
from mixskd.errors import UserError, first_line


def hold_out(images: ImageSet, fraction: float, seed: int, classes: Sequence[str] = ()) -> tuple[ImageSet, ImageSet]:
    """``images`` as two sets: those that are kept, and ``fraction`` of each class that is held out.

    Images of one group stay together. ``classes`` are the names for messages. Raises UserError for a class with one
    image, fewer than two groups, or groups that would leave a class without training images.
    """
    labels, groups = strata(images.labels, least=2), images.groups
    if groups is None:
        kept, held = stratified_holdout(labels, fraction, seed, classes)
        return images.subset(kept), images.subset(held)
    if (number := len(np.unique(groups))) < 2:
        raise UserError(f"data.group puts all images into one group ({groups[0]}); a hold-out needs two or more")
    try:
        kept, held = _fold(labels, groups, min(max(round(1 / fraction), 2), number), 0, seed)
    except ValueError as error:
        raise UserError(f"data.group leaves too few groups for a hold-out: {first_line(error)}") from None
    _check_kept(labels, kept, classes, "on one side; give the splits yourself")
    return images.subset(kept), images.subset(held)


def class_name(label: int, classes: Sequence[str]) -> str:
    """The class of ``label`` for a message."""
    return classes[label] if label < len(classes) else str(label)


def stratified_holdout(
    labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and to test on, sorted: of each class ``fraction``, but at least one image on either side.

    Raises UserError for a class with one image.
    """
    generator = np.random.default_rng(seed)
    held = []
    present, counts = np.unique(labels, return_counts=True)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for label, members in zip(present, by_class, strict=True):
        if len(members) < 2:
            raise UserError(
                f"class {class_name(label, classes)} has one image only; a hold-out needs two or more of each class"
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held.append(generator.permutation(members)[:count])
    test = np.sort(np.concatenate(held))
    kept = np.ones(len(labels), bool)
    kept[test] = False
    return np.flatnonzero(kept), test


def hold_out_fold(
    images: ImageSet, folds: int, fold: int, seed: int, classes: Sequence[str] = ()
) -> tuple[ImageSet, ImageSet]:
    """``images`` as two sets: those of all folds but one, and those of ``fold`` (0 to ``folds`` - 1).

    The folds depend on ``seed`` alone. Each has the same share of every class, and the images of one group are in one
    fold. Raises UserError for a class with fewer images than folds, or fewer groups than folds.
    """
    labels, groups = strata(images.labels, least=folds), images.groups
    present, counts = np.unique(labels, return_counts=True)
    if counts.min() < folds:
        rare = class_name(present[counts.argmin()], classes)
        raise UserError(f"class {rare} has {counts.min()} images, fewer than the {folds} folds; take fewer folds")
    if groups is not None and (number := len(np.unique(groups))) < folds:
        raise UserError(f"data.group makes {number} groups, fewer than the {folds} folds; take fewer folds")
    kept, held = _fold(labels, groups, folds, fold, seed)
    _check_kept(labels, kept, classes, "into one fold; take fewer folds")
    return images.subset(kept), images.subset(held)


def _fold(
    labels: np.ndarray, groups: np.ndarray | None, folds: int, fold: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices outside and inside ``fold``, sorted (scikit-learn's StratifiedKFold, or StratifiedGroupKFold)."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    kept, held = list(splitter(folds, shuffle=True, random_state=seed).split(labels, labels, groups))[fold]
    return np.sort(kept), np.sort(held)


def _check_kept(labels: np.ndarray, kept: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Raises UserError for a class without an image among those that are ``kept`` (indices)."""
    if len(missing := np.setdiff1d(labels, labels[kept])):
        raise UserError(f"data.group puts every image of class {class_name(missing[0], classes)} {where}")


def first_per_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of the first ``count`` images of each class, or all of a smaller one, sorted."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))
