"""Cut a CIFAR-100 ``.npz`` down to N training images a class, with the full test set: the data of results/cifar100_100.

    python benchmarks/cifar100_subset.py cifar100.npz cifar100_100.npz [N=100]

The input has MedMNIST's keys (``train_images`` uint8 50000 x 32 x 32 x 3, ``train_labels``, ``test_*``, ``classes``).
Of each class the first N in the file's order are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(source: Path, target: Path, per_class: int = 100) -> None:
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    labels = arrays["train_labels"]
    keep = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))
    arrays["train_images"], arrays["train_labels"] = arrays["train_images"][keep], labels[keep]
    np.savez(target, **arrays)
    print(f"{target}: {len(keep)} training and {len(arrays['test_labels'])} test images")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
