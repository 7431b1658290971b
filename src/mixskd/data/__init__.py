"""Data sets and how they reach the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mixskd.data.arrays import load_digits, load_npz
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.loader import ArrayLoader, ArrayTestLoader
from mixskd.errors import UserError, unknown

if TYPE_CHECKING:
    from mixskd.config import DataConfig

DATASETS = ("digits",)


def load_data(config: DataConfig, seed: int) -> DataBundle:
    """The data set that ``config.source`` names, or that lies there: an ``.npz`` file or an image folder.

    ``seed`` decides a hold-out, where one is needed. Raises UserError for anything that cannot be used.
    """
    if config.source == "digits":
        return load_digits(config.holdout, seed)
    path = Path(config.source).expanduser()
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path, config.holdout, seed)
    if len(path.parts) > 1 or path.suffix:
        raise UserError(f"there is no data at {path}; give an image folder, an .npz file, or one of {', '.join(DATASETS)}")
    raise unknown("data set", config.source, DATASETS)


def make_loaders(
    data: DataBundle, batch_size: int, device: torch.device, seed: int, *, workers: int = 2
) -> tuple[ArrayLoader, ArrayTestLoader]:
    """The training and the test loader."""
    return ArrayLoader(data, batch_size, device, seed), ArrayTestLoader(data, data.test, device)


__all__ = ["DATASETS", "DataBundle", "ImageSet", "load_data", "make_loaders"]
