"""Batches from memory: the images live on the device as uint8 and are augmented there, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.errors import UserError


class ArrayLoader:
    """Shuffled, cropped, flipped and normalised batches of a data set in memory.

    The order is a pure function of (seed, epoch), the augmentation of (seed, epoch, step), so a run can be resumed at
    any step. A last, smaller batch is dropped.

    Args:
        pad: pixels of black border before a random crop of the images' own size (He et al., 2016); 0 for no crop.
    """

    def __init__(
        self, data: DataBundle, batch_size: int, device: torch.device, seed: int, pad: int | None = None
    ) -> None:
        if batch_size > len(data.train):
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {len(data.train)} images; "
                "set a smaller --batch-size"
            )
        self.images, self.labels = on_device(data.train, device)
        self.batch_size, self.device, self.seed, self.flip = batch_size, device, seed, data.flip
        self.pad = data.image_size // 8 if pad is None else pad
        self.normalise = Normalise(data, device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``epoch`` from ``start`` on: images ``B x 3 x H x W``, fp32, channels last; labels ``B``."""
        order = torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(len(self.labels)))
        order = order.to(self.device)
        for step in range(start, len(self)):
            state = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1, np.uint64)
            generator = torch.Generator(self.device).manual_seed(int(state[0] >> 1))
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.normalise(self.augment(self.images[index], generator)), self.labels[index]

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random crops and flips of uint8 images ``B x 3 x H x W``, each image its own."""
        batch, _, height, width = images.shape
        corner = torch.randint(2 * self.pad + 1, (2, batch, 1), generator=generator, device=self.device)
        rows = corner[0] + torch.arange(height, device=self.device)
        columns = corner[1] + torch.arange(width, device=self.device)
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator, device=self.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(images, [self.pad] * 4).permute(0, 2, 3, 1)
        which = torch.arange(batch, device=self.device)[:, None, None]
        return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ArrayTestLoader:
    """Every image once, in order, normalised only; the last batch may be smaller."""

    def __init__(self, data: DataBundle, split: ImageSet, device: torch.device, batch_size: int = 512) -> None:
        self.images, self.labels = on_device(split, device)
        self.batch_size = batch_size
        self.normalise = Normalise(data, device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalise(images), labels


def on_device(split: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 images ``N x 3 x H x W`` (channels last in memory) and int64 labels."""
    images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device).permute(0, 3, 1, 2)
    return images, torch.from_numpy(split.labels).to(device)


class Normalise:
    """uint8 ``B x 3 x H x W`` to (x / 255 - mean) / std in fp32, channels last."""

    def __init__(self, data: DataBundle, device: torch.device) -> None:
        mean, std = (torch.tensor(v, device=device).reshape(3, 1, 1) for v in (data.mean, data.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return images.float().mul_(self.scale).add_(self.shift)
