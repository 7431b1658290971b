"""Loaders with worker processes: for image files, and for arrays whose augmentation works on single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from mixskd.config import DataConfig
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import Normalise
from mixskd.data.draws import Draws
from mixskd.data.images import MAX_PIXELS, decode_image
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES
from mixskd.data.prefetch import ahead
from mixskd.data.sources.shards import Member
from mixskd.data.workers import errors_in_one_line, lasting_loader
from mixskd.runtime.distributed import World
from mixskd.runtime.random_numbers import seeded


def augmentation(data: DataBundle, config: DataConfig) -> v2.Transform:
    """Random crop, flip, colour jitter and policy of ``config``, from PIL image to PIL image."""
    size = data.image_size
    steps: list[Any]
    if config.crop_for(size) == "pad":
        steps = [v2.Resize((size, size), antialias=True), v2.RandomCrop(size, size // 8)]
    else:
        steps = [v2.RandomResizedCrop(size, scale=config.crop_scale, ratio=config.crop_ratio)]
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    if config.color_jitter:
        steps.append(v2.ColorJitter(*config.color_jitter))
    if config.augment in IMAGE_POLICIES:
        steps.append(IMAGE_POLICIES[config.augment](size))
    return v2.Compose(steps)


class Item(NamedTuple):
    """One request to the data set: an anchor, its partners, and the seed of their augmentation.

    ``draws`` (``n x numbers``) are random numbers for each image of the item, which a policy on the device uses.
    """

    anchor: int
    partners: tuple[int, ...]
    seed: int
    draws: np.ndarray | None = None


class Images(Dataset[dict[str, Tensor]]):
    """Decoded and augmented images as uint8. They depend on the :class:`Item` alone, not on the worker.

    ``images`` (``n x 3 x H x W``) are the anchor, its further views and its partners. With draws they are packed into
    one tensor with them, see :func:`packed`, so that a batch is one transfer to the device. JPEG files are decoded to
    no more than ``enough`` pixels of height and width need.
    """

    def __init__(
        self,
        split: ImageSet,
        augment: v2.Transform,
        enough: int,
        views: int = 1,
        view_policy: v2.Transform | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.split, self.augment, self.enough, self.max_pixels = split, augment, enough, max_pixels
        self.views, self.view_policy = views, view_policy

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        image = self.open(item.anchor)
        with seeded(item.seed):
            first = self.augment(image)
            views = [self.view(image, first) for _ in range(self.views - 1)]
            partners = [self.augment(self.open(i)) for i in item.partners]
        images = torch.stack([pil_to_tensor(x) for x in (first, *views, *partners)])
        return {"images": images if item.draws is None else packed(torch.from_numpy(item.draws), images)}

    def view(self, image: Image.Image, first: Image.Image) -> Image.Image:
        """A view after the first: another augmentation of ``image``, or the policy for views applied to ``first``."""
        return self.augment(image) if self.view_policy is None else self.view_policy(first)

    def open(self, index: int) -> Image.Image:
        image = self.split.images[index]
        if isinstance(image, np.ndarray):
            return Image.fromarray(image)
        content = image.read() if isinstance(image, Member) else None
        return decode_image(str(image), content, self.enough, self.max_pixels)


def packed(draws: Tensor, images: Tensor) -> Tensor:
    """fp32 ``draws`` (``n x numbers``) and uint8 ``images`` (``n x 3 x H x W``) as ``n`` rows of bytes."""
    rows = torch.cat([draws.view(torch.uint8), images.flatten(1)], dim=1)
    return F.pad(rows, [0, -rows.shape[1] % draws.element_size()])  # aligned for fp32


def unpacked(rows: Tensor, numbers: int, size: int) -> tuple[Tensor, Tensor]:
    """The draws (``numbers x n``) and images (``n x 3 x size x size``) of :func:`packed`, as views."""
    draws, images, _ = rows.tensor_split([numbers * 4, numbers * 4 + 3 * size**2], dim=1)
    return draws.view(torch.float32).T, images.unflatten(1, (3, size, size))


class WorkerLoader:
    """Shuffled training batches. Order and augmentation depend on (seed, epoch, step) alone.

    ``deferred`` batches are made within the step, see :class:`DeferredBatch`.
    """

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, config: DataConfig, workers: int = 2,
        *, deferred: bool = False,
    ) -> None:  # fmt: skip
        needs, name = plan.needs, plan.needs.view_policy
        view_policy = None if name is None else IMAGE_POLICIES[name](data.image_size)
        images = Images(
            data.train, augmentation(data, config), data.preprocess.enough, needs.views, view_policy, data.max_pixels
        )
        self.plan, self.device, self.size = plan, device, data.image_size
        self.labels = torch.from_numpy(data.train.labels).to(device)
        self.slots = torch.from_numpy(plan.slots).to(device)
        self.batches = WorkerBatches(images, device, workers)
        self.normalise = Normalise(data.preprocess, device)
        self.policy = BATCH_POLICIES.get(config.augment)
        self.counts = [1, needs.views - 1, needs.partners]
        if self.policy is not None:
            sizes = [len(plan.slots) * count for count in self.counts]
            self.draws = Draws(plan, torch.device("cpu"), self.policy.draws, sizes)
        self.deferred = deferred

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | DeferredBatch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        indices = torch.from_numpy(anchors).to(self.device)
        items = self.items(epoch, start, anchors, partners)
        for step, samples in enumerate(self.batches.load(items), start):
            index, sent = indices[step], samples["images"]
            yield DeferredBatch(index, sent, self.make) if self.deferred else self.make(index, sent)

    def items(self, epoch: int, start: int, anchors: np.ndarray, partners: np.ndarray) -> Iterator[list[Item]]:
        """The requests to the workers for each batch of the epoch from ``start`` on."""
        seeds = self.plan.seeds(epoch)
        for step in range(start, len(self)):
            draws: Sequence[np.ndarray | None] = [None] * len(anchors[step])
            if self.policy is not None:
                groups = self.draws.split(self.draws.of(epoch, step))
                each = [u.unflatten(1, (-1, count)) for u, count in zip(groups, self.counts, strict=True) if count]
                draws = [*torch.cat(each, dim=2).permute(1, 2, 0).contiguous().numpy()]
            yield [
                Item(anchor, tuple(others), seed, drawn)
                for anchor, others, seed, drawn in zip(
                    anchors[step].tolist(), partners[step].tolist(), seeds[step].tolist(), draws, strict=True
                )
            ]

    def make(self, index: Tensor, sent: Tensor) -> Batch:
        """The batch of the images ``index`` (``B``), whose bytes (``B x images of each x ...``) the workers sent."""
        needs = self.plan.needs
        groups = (x.flatten(0, 1) for x in sent.split(self.counts, dim=1))
        images, views, partners = map(self.finish, groups)
        extra: dict[str, Tensor] = {}
        if needs.views > 1:
            extra["views"] = views.unflatten(0, (len(index), -1))
        if needs.partners:
            extra["partners"] = partners.unflatten(0, (len(index), -1))
        if needs.indices:
            extra["indices"] = index
        if needs.slots:
            extra["slots"] = self.slots
        return Batch(images, self.labels[index], extra)

    def finish(self, sent: Tensor) -> Tensor:
        """The images that the workers ``sent``, normalised, and augmented by the policy on the device."""
        if self.policy is None:
            return self.normalise(sent)
        draws, images = unpacked(sent, self.policy.draws, self.size)
        return self.policy.apply(self.normalise(images), draws, self.normalise.mean)


class WorkerTestLoader:
    """Every file of this process's part once, in order; the last batch may be smaller. Without files it is empty."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, workers: int, batch_size: int = 64,
        world: World | None = None,
    ) -> None:  # fmt: skip
        images = Images(split, data.preprocess.crop(), data.preprocess.enough, max_pixels=data.max_pixels)
        world = world or World()
        mine = np.arange(world.rank, len(split), world.size)
        self.batch_indices = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        self.labels = torch.from_numpy(split.labels[mine]).to(device).split(batch_size)
        self.batches = WorkerBatches(images, device, workers)
        self.normalise = Normalise(data.preprocess, device)
        self.none = torch.empty(0, 3, data.image_size, data.image_size, device=device)

    def __len__(self) -> int:
        return len(self.batch_indices)

    @property
    def number(self) -> int:
        """Images."""
        return sum(map(len, self.batch_indices))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.batch_indices:
            yield self.none, self.labels[0]
            return
        requests = ([Item(i, (), 0) for i in indices.tolist()] for indices in self.batch_indices)
        for samples, labels in zip(self.batches.load(requests), self.labels, strict=True):
            yield self.normalise(samples["images"].squeeze(1)), labels


class WorkerBatches:
    """Batches of a data set of uint8 images on the device. The workers are kept between epochs."""

    def __init__(self, images: Dataset[Any], device: torch.device, workers: int) -> None:
        self.requests, self.device = Requests(), device
        self.loader = lasting_loader(self, images, self.requests, device, workers)

    def load(self, items: Iterable[list[Any]]) -> Iterator[dict[str, Tensor]]:
        """The samples of each batch of ``items``, in order; only the next few batches are requested ahead."""
        self.requests.items = items
        with errors_in_one_line():
            yield from ahead(self.loader, self.device)


class Requests:
    """The items of the present epoch, for a loader that is kept between epochs."""

    def __init__(self) -> None:
        self.items: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.items)
