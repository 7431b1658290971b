"""Loaders with worker processes, and the data set that these read and augment: image files, and arrays whose
augmentation works on single images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from mixskd.config import DataConfig
from mixskd.data.batch import Batch, DeferredBatch
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import Normalise
from mixskd.data.draws import Draws
from mixskd.data.images import MAX_PIXELS, open_image
from mixskd.data.labels import as_tensor
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES
from mixskd.data.preprocess import Preprocess, image_tensor
from mixskd.data.sources.hub import Row
from mixskd.data.sources.shards import Member
from mixskd.data.workers import WorkerBatches
from mixskd.runtime.distributed import World
from mixskd.runtime.random_numbers import seeded


def augmentation(data: DataBundle, config: DataConfig, size: int) -> v2.Transform:
    """Random crop to ``size`` pixels, flip, colour jitter and policy of ``config``, on images and tensors."""
    steps: list[Any]
    if config.crop_for(data.image_size) == "pad":
        steps = [data.training.whole(size), v2.RandomCrop(size, size // 8)]
    else:
        steps = [data.training.part(size, config.crop_scale, config.crop_ratio)]
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    if config.color_jitter:
        steps.append(v2.ColorJitter(*config.color_jitter))
    if config.augment in IMAGE_POLICIES:
        steps.append(IMAGE_POLICIES[config.augment](data.image_size))
    return v2.Compose(steps)


class Item(NamedTuple):
    """One request to the data set: an anchor, its partners, the seed of their augmentation, and the ``size`` wanted.

    ``draws`` (``n x numbers``) are random numbers for each image of the item, which a policy on the device uses.
    """

    anchor: int
    partners: tuple[int, ...]
    seed: int
    draws: np.ndarray | None = None
    size: int = 0


class Images(Dataset[dict[str, Tensor]]):
    """Decoded and augmented images, uint8 or fp32. They depend on the :class:`Item` alone, not on the worker.

    ``augments`` are the augmentations by the size of an item. ``images`` (``n x 3 x H x W``) are the anchor, its
    further views and its partners. With draws they are packed into one tensor with them, see :func:`packed`, so that a
    batch is one transfer to the device.
    """

    def __init__(
        self,
        split: ImageSet,
        augments: Mapping[int, Callable[[Any], Any]],
        wanted: Preprocess,
        views: int = 1,
        view_policy: v2.Transform | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.split, self.augments, self.wanted, self.max_pixels = split, augments, wanted, max_pixels
        self.views, self.view_policy = views, view_policy

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        image, augment = self.open(item.anchor), self.augments[item.size]
        with seeded(item.seed):
            first = augment(image)
            # A view after the first: another augmentation, or the policy for views on the first.
            view, of = (augment, image) if self.view_policy is None else (self.view_policy, first)
            views = [view(of) for _ in range(self.views - 1)]
            partners = [augment(self.open(i)) for i in item.partners]
        images = torch.stack([image_tensor(x) for x in (first, *views, *partners)])
        return {"images": images if item.draws is None else packed(torch.from_numpy(item.draws), images)}

    def open(self, index: int) -> Image.Image | Tensor:
        image = self.split.images[index]
        if isinstance(image, np.ndarray):
            if self.wanted.usual:
                return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
            return torch.from_numpy(image.transpose(2, 0, 1).copy())
        content = image.read() if isinstance(image, Member | Row) else None
        return open_image(str(image), self.wanted, content, self.max_pixels)


def packed(draws: Tensor, images: Tensor) -> Tensor:
    """fp32 ``draws`` (``n x numbers``) and ``images`` (``n x C x H x W``) as ``n`` rows of bytes."""
    rows = torch.cat([draws.view(torch.uint8), images.contiguous().flatten(1).view(torch.uint8)], dim=1)
    return F.pad(rows, [0, -rows.shape[1] % draws.element_size()])  # aligned for fp32


def unpacked(rows: Tensor, numbers: int, size: int, wanted: Preprocess) -> tuple[Tensor, Tensor]:
    """The draws (``numbers x n``) and images (``n x C x size x size``) of :func:`packed`, as views."""
    kind, channels = torch.uint8 if wanted.range is None else torch.float32, wanted.channels
    draws, images, _ = rows.tensor_split([numbers * 4, numbers * 4 + channels * size**2 * kind.itemsize], dim=1)
    return draws.view(torch.float32).T, images.view(kind).unflatten(1, (channels, size, size))


class WorkerLoader:
    """Shuffled training batches. Order and augmentation depend on (seed, epoch, step) alone.

    ``size_in`` gives height and width of the batches of an epoch; those of ``data`` if None. ``deferred`` batches are
    made within the step, see :class:`DeferredBatch`.
    """

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, config: DataConfig, workers: int = 2,
        *, deferred: bool = False, size_in: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        needs, name = plan.needs, plan.needs.view_policy
        view_policy = None if name is None else IMAGE_POLICIES[name](data.image_size)
        augments = {size: augmentation(data, config, size) for size in (*config.scale_schedule, data.image_size)}
        images = Images(data.train, augments, data.training, needs.views, view_policy, data.max_pixels)
        self.plan, self.device, self.wanted = plan, device, data.training
        self.labels = as_tensor(data.train.labels, device)
        self.slots = torch.from_numpy(plan.slots).to(device)
        self.batches = WorkerBatches(images, device, workers)
        self.normalise = Normalise(data.preprocess, device)
        self.policy = BATCH_POLICIES.get(config.augment)
        self.counts = [1, needs.views - 1, needs.partners]
        if self.policy is not None:
            sizes = [len(plan.slots) * count for count in self.counts]
            self.draws = Draws(plan, torch.device("cpu"), self.policy.draws, sizes)
        self.deferred, self.size_in = deferred, size_in or (lambda epoch: data.image_size)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | DeferredBatch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        indices = torch.from_numpy(anchors).to(self.device)
        items, size = self.items(epoch, start, anchors, partners), self.size_in(epoch)
        for step, samples in enumerate(self.batches.load(items), start):
            index, sent = indices[step], samples["images"]
            yield DeferredBatch(index, sent, self.make, size) if self.deferred else self.make(index, sent, size)

    def items(self, epoch: int, start: int, anchors: np.ndarray, partners: np.ndarray) -> Iterator[list[Item]]:
        """The requests to the workers for each batch of the epoch from ``start`` on."""
        seeds, size = self.plan.seeds(epoch), self.size_in(epoch)
        for step in range(start, len(self)):
            draws: Sequence[np.ndarray | None] = [None] * len(anchors[step])
            if self.policy is not None:
                groups = self.draws.split(self.draws.of(epoch, step))
                each = [u.unflatten(1, (-1, count)) for u, count in zip(groups, self.counts, strict=True) if count]
                draws = [*torch.cat(each, dim=2).permute(1, 2, 0).contiguous().numpy()]
            yield [
                Item(anchor, tuple(others), seed, drawn, size)
                for anchor, others, seed, drawn in zip(
                    anchors[step].tolist(), partners[step].tolist(), seeds[step].tolist(), draws, strict=True
                )
            ]

    def make(self, index: Tensor, sent: Tensor, size: int) -> Batch:
        """The batch of the images ``index`` (``B``), whose bytes (``B x images of each x ...``) the workers sent, in
        ``size`` pixels.
        """
        needs = self.plan.needs
        groups = (x.flatten(0, 1) for x in sent.split(self.counts, dim=1))
        images, views, partners = (self.finish(group, size) for group in groups)
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

    def finish(self, sent: Tensor, size: int) -> Tensor:
        """The images that the workers ``sent``, normalised, and augmented by the policy on the device."""
        if self.policy is None:
            return self.normalise(sent)
        draws, images = unpacked(sent, self.policy.draws, size, self.wanted)
        return self.policy.apply(self.normalise(images), draws, self.normalise.mean)


class WorkerTestLoader:
    """Every file of this process's part once, in order; the last batch may be smaller. Without files it is empty."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, batch_size: int, world: World, workers: int
    ) -> None:
        images = Images(split, {0: data.preprocess.crop()}, data.preprocess, max_pixels=data.max_pixels)
        mine = np.arange(world.rank, len(split), world.size)
        self.batch_indices = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        self.labels = as_tensor(split.labels[mine], device).split(batch_size)
        self.batches = WorkerBatches(images, device, workers)
        self.normalise = Normalise(data.preprocess, device)
        self.none = torch.empty(0, data.preprocess.channels, *[data.preprocess.image_size] * 2, device=device)

    def __len__(self) -> int:
        return len(self.batch_indices)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.batch_indices:
            yield self.none, self.labels[0]
            return
        requests = ([Item(i, (), 0) for i in indices.tolist()] for indices in self.batch_indices)
        for samples, labels in zip(self.batches.load(requests), self.labels, strict=True):
            yield self.normalise(samples["images"].squeeze(1)), labels
