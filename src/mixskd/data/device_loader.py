"""Batches of a data set that lives on the device as uint8: cropped, flipped, erased and normalised there, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES
from mixskd.data.preprocess import Preprocess
from mixskd.distributed import World
from mixskd.needs import Batch

# ``uniform(numbers, images)``: so many draws in [0, 1) for each image, ``numbers x images``.
Uniform = Callable[[int, int], Tensor]


class Augment:
    """Random numbers for one step, the same for any number of processes, of which this one uses its part."""

    def __init__(self, plan: BatchPlan, device: torch.device, epoch: int, step: int) -> None:
        state = np.random.SeedSequence([plan.seed, epoch, step]).generate_state(1, np.uint64)
        self.generator = torch.Generator(device).manual_seed(int(state[0] >> 1))
        self.world, self.device = plan.world, device

    def uniform(self, numbers: int, images: int) -> Tensor:
        """``numbers x images`` uniform draws in [0, 1) for this process's ``images``."""
        draws = torch.rand(numbers, images * self.world.size, generator=self.generator, device=self.device)
        return draws[:, self.world.part(images * self.world.size)]


class DeviceLoader:
    """Batches from memory. Order and augmentation follow from (seed, epoch, step), so a run resumes at any step.

    Args:
        policy: a name in BATCH_POLICIES, or ``none``.
        pad: pixels of black border before a random crop of the images' own size (He et al., 2016).

    With ``deferred`` set, a batch is given as indices and random numbers that it prepares itself, so that a recorded
    step holds that work too. The images are the same.
    """

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, policy: str = "none", pad: int | None = None
    ) -> None:
        self.images, self.labels = on_device(data.train, device)
        self.plan, self.device, self.flip = plan, device, data.flip
        self.pad = data.image_size // 8 if pad is None else pad
        self.slots = torch.from_numpy(plan.slots).to(device)
        self.normalise = Normalise(data.preprocess, device)
        self.policy = BATCH_POLICIES.get(policy)
        self.deferred = False
        self.draws: list[tuple[int, int]] = []  # numbers and images of each draw of a batch

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from step ``start`` on; with ``deferred`` what they are made from."""
        anchors, partners = (torch.from_numpy(part).to(self.device) for part in self.plan.epoch(epoch))
        for step in range(start, len(self)):
            augment = Augment(self.plan, self.device, epoch, step)
            others = partners[step].flatten() if self.plan.needs.partners else None
            if self.deferred:
                yield self._defer(anchors[step], others, augment)
            else:
                yield self._make(anchors[step], others, augment.uniform)

    def _make(self, index: Tensor, partners: Tensor | None, uniform: Uniform) -> Batch:
        """The batch of the images of ``index`` (``B``) and of ``partners`` (``B * partners``)."""
        needs = self.plan.needs
        views = [self.load(index, uniform) for _ in range(needs.views)]
        extra: dict[str, Tensor] = {}
        if needs.views > 1:
            extra["views"] = torch.stack(views[1:], dim=1)
        if partners is not None:
            extra["partners"] = self.load(partners, uniform).unflatten(0, (len(index), -1))
        if needs.indices:
            extra["indices"] = index
        if needs.slots:
            extra["slots"] = self.slots
        return Batch(views[0], self.labels[index], extra)

    def _defer(self, index: Tensor, partners: Tensor | None, augment: Augment) -> Batch:
        """Indices and random numbers, and :meth:`prepare` to make the batch of them."""
        if not self.draws:  # what a batch asks for, found by making one
            self._make(index, partners, self._note_draw)
        extra = {f"draw{i}": augment.uniform(*shape) for i, shape in enumerate(self.draws)}
        if partners is not None:
            extra["partners"] = partners
        return Batch(index, index, extra, self.prepare)

    def _note_draw(self, numbers: int, images: int) -> Tensor:
        self.draws.append((numbers, images))
        return torch.full((numbers, images), 0.5, device=self.device)

    def prepare(self, batch: Batch) -> Batch:
        """The batch of what :meth:`epoch` gave with ``deferred``; it changes nothing and waits for nothing."""
        extra = dict(batch.extra)
        draws = iter([extra.pop(f"draw{i}") for i in range(len(self.draws))])
        made = self._make(batch.images, extra.pop("partners", None), lambda _numbers, _images: next(draws))
        return made._replace(extra={**extra, **made.extra})

    def load(self, index: Tensor, uniform: Uniform) -> Tensor:
        """The images of ``index``, each with its own crop and flip, augmented and normalised."""
        images = self.images[index]
        count, _, height, width = images.shape
        draws = uniform(3, count)
        corner = (draws[:2, :, None] * (2 * self.pad + 1)).floor().long()
        rows = corner[0] + torch.arange(height, device=self.device)
        columns = corner[1] + torch.arange(width, device=self.device)
        if self.flip:
            columns = torch.where(draws[2, :, None] < 0.5, columns.flip(1), columns)
        padded = F.pad(images, [self.pad] * 4).permute(0, 2, 3, 1)
        which = torch.arange(count, device=self.device)[:, None, None]
        images = self.normalise(padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2))
        if self.policy is not None:
            images = self.policy(images, lambda numbers: uniform(numbers, count), self.normalise.mean)
        return images


class DeviceTestLoader:
    """Every image of this process's part once, in order, normalised only; the last batch may be smaller."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, batch_size: int = 512, world: World | None = None
    ) -> None:
        world = world or World()
        self.images, self.labels = (x[world.rank :: world.size] for x in on_device(split, device))
        self.batch_size = batch_size
        self.normalise = Normalise(data.preprocess, device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    @property
    def number(self) -> int:
        """Images."""
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalise(images), labels


def on_device(split: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 images ``N x 3 x H x W`` (channels last in memory) and int64 labels."""
    images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device).permute(0, 3, 1, 2)
    return images, torch.from_numpy(split.labels).to(device)


class Normalise:
    """uint8 ``B x 3 x H x W`` to (x / 255 - mean) / std in fp32, channels last."""

    def __init__(self, preprocess: Preprocess, device: torch.device) -> None:
        mean_and_std = (preprocess.mean, preprocess.std)
        self.mean, std = (torch.tensor(v, device=device).reshape(3, 1, 1) for v in mean_and_std)
        self.scale, self.shift = 1 / (255 * std), -self.mean / std

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return images.float().mul_(self.scale).add_(self.shift)
