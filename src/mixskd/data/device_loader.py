"""Loaders for arrays that are kept on the device as uint8, and augmented and normalised there, a batch at a time."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.data.batch import Batch, DeferredBatch
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.draws import Draws
from mixskd.data.labels import as_tensor
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES
from mixskd.data.preprocess import Preprocess
from mixskd.runtime.distributed import World

GEOMETRY = 3  # random numbers for each image: the two coordinates of its crop, and whether it is flipped


class DeviceLoader:
    """Training batches from arrays. Order and augmentation depend on (seed, epoch, step) alone, so a run can resume at
    any step.

    Args:
        policy: a name in BATCH_POLICIES, or ``none``.
        size_in: height and width of the batches of an epoch, in pixels; those of the images if None.

    ``deferred`` batches are made within the step, see :class:`DeferredBatch`.
    """

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, policy: str = "none", *,
        deferred: bool = False, size_in: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        self.images, self.labels = on_device(data.train, device)
        self.plan, self.device, self.flip = plan, device, data.flip
        self.pad = data.image_size // 8  # black border before a random crop of the images' own size (He et al., 2016)
        self.slots = torch.from_numpy(plan.slots).to(device)
        self.normalise = Normalise(data.preprocess, device)
        self.policy = BATCH_POLICIES.get(policy)
        numbers = GEOMETRY + (self.policy.draws if self.policy is not None else 0)
        needs, each = plan.needs, len(plan.slots)
        self.draws = Draws(plan, device, numbers, [each] * needs.views + [each * needs.partners])
        self.deferred, self.size_in = deferred, size_in or (lambda epoch: data.image_size)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | DeferredBatch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        rows = torch.from_numpy(np.concatenate([anchors[:, :, None], partners], axis=2)).to(self.device)
        size = self.size_in(epoch)
        for step in range(start, len(self)):
            indices, numbers = rows[step], self.draws.of(epoch, step)
            yield (
                DeferredBatch(indices, numbers, self.make, size) if self.deferred else self.make(indices, numbers, size)
            )

    def make(self, indices: Tensor, numbers: Tensor, size: int) -> Batch:
        """The batch of ``indices`` (``B x (1 + partners)``) in ``size`` pixels, augmented by the random ``numbers`` of
        its step.
        """
        needs, index = self.plan.needs, indices[:, 0]
        *draws, for_partners = self.draws.split(numbers)
        views = [self.load(index, u, size) for u in draws]
        extra: dict[str, Tensor] = {}
        if needs.views > 1:
            extra["views"] = torch.stack(views[1:], dim=1)
        if needs.partners:
            extra["partners"] = self.load(indices[:, 1:].flatten(), for_partners, size).unflatten(0, (len(index), -1))
        if needs.indices:
            extra["indices"] = index
        if needs.slots:
            extra["slots"] = self.slots
        return Batch(views[0], self.labels[index], extra)

    def load(self, index: Tensor, u: Tensor, size: int) -> Tensor:
        """The images of ``index`` (``B``), cropped, flipped, augmented and normalised by ``u`` (numbers x ``B``), then
        resized to ``size``.
        """
        images = self.images[index]
        count, _, height, width = images.shape
        corner = (u[:2, :, None] * (2 * self.pad + 1)).floor().long()
        rows = corner[0] + torch.arange(height, device=self.device)
        columns = corner[1] + torch.arange(width, device=self.device)
        if self.flip:
            columns = torch.where(u[2, :, None] < 0.5, columns.flip(1), columns)
        padded = F.pad(images, [self.pad] * 4).permute(0, 2, 3, 1)
        which = torch.arange(count, device=self.device)[:, None, None]
        images = self.normalise(padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2))
        if size != height:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        if self.policy is not None:
            images = self.policy.apply(images, u[GEOMETRY:], self.normalise.mean)
        return images


class DeviceTestLoader:
    """Every image of this process's part once, in order, normalised only; the last batch may be smaller."""

    def __init__(self, data: DataBundle, split: ImageSet, device: torch.device, batch_size: int, world: World) -> None:
        self.images, self.labels = (x[world.rank :: world.size] for x in on_device(split, device))
        self.batch_size = batch_size
        self.normalise = Normalise(data.preprocess, device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalise(images), labels


def on_device(split: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images ``N x C x H x W`` (channels last in memory) and labels as a loss takes them."""
    images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device).permute(0, 3, 1, 2)
    return images, as_tensor(split.labels, device)


class Normalise:
    """``B x C x H x W`` to (x - mean) / std in fp32, channels last; uint8 is divided by 255 before."""

    def __init__(self, preprocess: Preprocess, device: torch.device) -> None:
        mean_and_std = (preprocess.mean, preprocess.std)
        self.mean, std = (torch.tensor(v, device=device).reshape(-1, 1, 1) for v in mean_and_std)
        self.scale = 1 / (std if preprocess.range else 255 * std)
        self.shift = -self.mean / std

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return images.float().mul_(self.scale).add_(self.shift)
