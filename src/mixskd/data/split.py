"""Parts of a data set by class."""

from __future__ import annotations

import numpy as np

from mixskd.errors import UserError


def stratified_holdout(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and to test on, sorted: of each class ``fraction``, but at least one image on either side.

    Raises UserError for a class with one image.
    """
    generator = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"class {label} has one image only; a hold-out needs two or more of each class")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held.append(generator.permutation(members)[:count])
    test = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), test), test


def first_per_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of the first ``count`` images of each class, or all of a smaller one, sorted."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))
