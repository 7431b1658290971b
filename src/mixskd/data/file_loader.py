"""Batches from image files: decoded, cropped and flipped in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.images import decode_image
from mixskd.errors import UserError


def train_transform(data: DataBundle) -> v2.Transform:
    """RandomResizedCrop and flip, as the paper at 224 px."""
    steps = [v2.RandomResizedCrop(data.image_size, antialias=True)]
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, *_normalise(data.mean, data.std)])


def eval_transform(image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """The whole image at 64 px or less; else the centre after a resize of the short side by 256/224, as the paper."""
    if image_size <= 64:
        steps: list[Any] = [v2.Resize((image_size, image_size), antialias=True)]
    else:
        steps = [v2.Resize(round(image_size * 256 / 224), antialias=True), v2.CenterCrop(image_size)]
    return v2.Compose([*steps, *_normalise(mean, std)])


def _normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> list[Any]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


class Files(Dataset[tuple[Tensor, int]]):
    """Decoded and transformed images. An item is asked for by (index, seed), so workers do not change the result."""

    def __init__(self, split: ImageSet, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = item if isinstance(item, tuple) else (item, 0)
        image = decode_image(self.split.images[index])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(image), int(self.split.labels[index])


class FileLoader:
    """Shuffled batches of image files; order and augmentation follow from (seed, epoch, position) alone."""

    def __init__(self, data: DataBundle, batch_size: int, device: torch.device, seed: int, workers: int) -> None:
        if batch_size > len(data.train):
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {len(data.train)} images; "
                "set a smaller --batch-size"
            )
        self.files = Files(data.train, train_transform(data))
        self.batch_size, self.device, self.seed, self.workers = batch_size, device, seed, workers

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.files) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``epoch`` from ``start`` on: images ``B x 3 x H x W``, fp32, channels last; labels ``B``."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.files))
        seeds = generator.integers(2**62, size=len(self.files))
        items = list(zip(order.tolist(), seeds.tolist(), strict=True))
        batches = [items[i * self.batch_size : (i + 1) * self.batch_size] for i in range(start, len(self))]
        loader: DataLoader[Any] = DataLoader(
            self.files, batch_sampler=batches, num_workers=self.workers, pin_memory=self.device.type == "cuda",
            worker_init_fn=_one_thread,
        )  # fmt: skip
        yield from _on_device(loader, self.device)


class FileTestLoader:
    """Every image once, in order; the last batch may be smaller."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, workers: int, batch_size: int = 64
    ) -> None:
        self.files = Files(split, eval_transform(data.image_size, data.mean, data.std))
        self.device, self.workers, self.batch_size = device, workers, batch_size

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            self.files, batch_size=self.batch_size, num_workers=self.workers,
            pin_memory=self.device.type == "cuda", worker_init_fn=_one_thread,
        )  # fmt: skip
        yield from _on_device(loader, self.device)


def _on_device(loader: DataLoader[Any], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        yield images, labels.to(device, non_blocking=True)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
