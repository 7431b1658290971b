"""Data sets, and the loaders that turn them into batches."""

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.loading import DATASETS, load_data
from mixskd.data.make_loaders import make_test_loader, make_train_loader, worker_count
from mixskd.data.preprocess import Preprocess

__all__ = [
    "DATASETS", "DataBundle", "ImageSet", "Preprocess", "load_data", "make_test_loader", "make_train_loader",
    "worker_count",
]  # fmt: skip
