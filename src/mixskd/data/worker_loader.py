"""Batches from worker processes: image files, or arrays under a policy that works on single images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import Augment, Normalise
from mixskd.data.images import decode_image
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES
from mixskd.data.prefetch import ahead
from mixskd.data.sources.shards import Member
from mixskd.distributed import World
from mixskd.errors import UserError
from mixskd.needs import Batch


def augmentation(data: DataBundle, policy: str = "none") -> v2.Transform:
    """Random crop and flip, then the policy: padded crops of arrays, RandomResizedCrop of files."""
    size = data.image_size
    steps: list[Any] = [v2.RandomCrop(size, size // 8) if data.train.in_memory else v2.RandomResizedCrop(size)]
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    if policy in IMAGE_POLICIES:
        steps.append(IMAGE_POLICIES[policy](size))
    return v2.Compose(steps)


def centre(image_size: int) -> v2.Transform:
    """The whole image at 64 px or less; else the centre after a resize of the short side by 256/224, as the paper."""
    if image_size <= 64:
        return v2.Resize((image_size, image_size), antialias=True)
    return v2.Compose([v2.Resize(round(image_size * 256 / 224), antialias=True), v2.CenterCrop(image_size)])


def eval_transform(image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """The centre of one image as a tensor, (x / 255 - mean) / std."""
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    return v2.Compose([centre(image_size), *to_tensor])


class Item(NamedTuple):
    """What is asked of the data set: an anchor, its partners, and the seed of all that is random about them."""

    anchor: int
    partners: tuple[int, ...]
    seed: int


class Images(Dataset[dict[str, Tensor]]):
    """Decoded and augmented images as uint8 by :class:`Item`, so that workers do not change the result.

    JPEG files are decoded no larger than crops of ``image_size`` need: three times that, so that a crop of a ninth of
    the area still has all its pixels.
    """

    def __init__(
        self,
        split: ImageSet,
        augment: v2.Transform,
        image_size: int,
        views: int = 1,
        view_policy: v2.Transform | None = None,
    ) -> None:
        self.split, self.augment, self.enough = split, augment, 3 * image_size
        self.views, self.view_policy = views, view_policy

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        image = self.open(item.anchor)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(item.seed)
            first = self.augment(image)
            sample = {"images": pil_to_tensor(first), "labels": torch.tensor(int(self.split.labels[item.anchor]))}
            if self.views > 1:
                sample["views"] = torch.stack([pil_to_tensor(self.view(image, first)) for _ in range(self.views - 1)])
            if item.partners:
                partners = [self.augment(self.open(i)) for i in item.partners]
                sample["partners"] = torch.stack([pil_to_tensor(partner) for partner in partners])
        return sample

    def view(self, image: Image.Image, first: Image.Image) -> Image.Image:
        """A view after the first: augmented anew from ``image``, or from ``first`` by the policy for views."""
        return self.augment(image) if self.view_policy is None else self.view_policy(first)

    def open(self, index: int) -> Image.Image:
        image = self.split.images[index]
        if isinstance(image, np.ndarray):
            return Image.fromarray(image)
        content = image.read() if isinstance(image, Member) else None
        return decode_image(str(image), content, self.enough)


class WorkerLoader:
    """Shuffled batches; order and augmentation follow from (seed, epoch, step) alone."""

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, policy: str = "none", workers: int = 2
    ) -> None:
        views, name = plan.needs.views, plan.needs.view_policy
        view_policy = None if name is None else IMAGE_POLICIES[name](data.image_size)
        images = Images(data.train, augmentation(data, policy), data.image_size, views, view_policy)
        self.plan, self.device = plan, device
        self.batches = WorkerBatches(images, data, device, workers)
        self.policy = BATCH_POLICIES.get(policy)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        seeds = np.random.default_rng([self.plan.seed, epoch, 1]).integers(2**62, size=len(self.plan.labels))
        indices = torch.from_numpy(anchors).to(self.device)
        items = [
            [Item(a, tuple(p), int(seeds[a])) for a, p in zip(row.tolist(), others.tolist(), strict=True)]
            for row, others in zip(anchors[start:], partners[start:], strict=True)
        ]
        for step, samples in enumerate(self.batches.load(items), start):
            images, labels = samples.pop("images"), samples.pop("labels")
            if self.policy is not None:
                augment = Augment(self.plan, self.device, epoch, step)
                images = self._erase(images, augment)
                samples = {
                    name: self._erase(x.flatten(0, 1), augment).unflatten(0, x.shape[:2]) for name, x in samples.items()
                }
            if self.plan.needs.indices:
                samples["indices"] = indices[step]
            yield Batch(images, labels, samples)

    def _erase(self, images: Tensor, augment: Augment) -> Tensor:
        assert self.policy is not None
        return self.policy(images, lambda numbers: augment.uniform(numbers, len(images)), self.batches.normalise.mean)


class WorkerTestLoader:
    """Every file of this process's part once, in order; the last batch may be smaller."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, workers: int, batch_size: int = 64,
        world: World | None = None,
    ) -> None:  # fmt: skip
        images = Images(split, centre(data.image_size), data.image_size)
        world = world or World()
        items = [Item(i, (), 0) for i in range(world.rank, len(split), world.size)]
        self.items = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        self.batches = WorkerBatches(images, data, device, workers)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for samples in self.batches.load(self.items):
            yield samples["images"], samples["labels"]


class WorkerBatches:
    """Batches of :class:`Images` on the device, normalised there; the workers stay between epochs."""

    def __init__(self, images: Images, data: DataBundle, device: torch.device, workers: int) -> None:
        self.items: list[list[Item]] = []
        self.device, self.normalise = device, Normalise(data, device)
        self.loader = DataLoader(
            images, batch_sampler=self.items, num_workers=workers, pin_memory=device.type == "cuda",
            persistent_workers=workers > 0, worker_init_fn=_one_thread,
        )  # fmt: skip

    def load(self, items: list[list[Item]]) -> Iterator[dict[str, Tensor]]:
        """The samples of each of ``items``, in order; fp32 ``images``, and ``views`` and ``partners`` if there are."""
        self.items[:] = items
        try:
            for samples in ahead(self.loader, self.device):
                labels = samples.pop("labels")
                yield {"labels": labels, **{name: self._normalised(x) for name, x in samples.items()}}
        except UserError as error:  # from a worker it comes behind that process's traceback
            raise UserError(str(error).splitlines()[-1].split("UserError: ", 1)[-1]) from None

    def _normalised(self, x: Tensor) -> Tensor:
        return self.normalise(x) if x.ndim == 4 else self.normalise(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
