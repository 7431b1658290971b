"""Batches from worker processes: image files, or arrays under a policy that works on single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from mixskd.config import DataConfig
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import Augment, Normalise
from mixskd.data.images import decode_image
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES
from mixskd.data.prefetch import ahead
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.shards import Member
from mixskd.distributed import World
from mixskd.errors import UserError
from mixskd.needs import Batch


def augmentation(data: DataBundle, config: DataConfig) -> v2.Transform:
    """Random crop, flip, colour jitter and policy as ``config`` says, from PIL image to PIL image."""
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
    """What is asked of the data set: an anchor, its partners, and the seed of all that is random about them."""

    anchor: int
    partners: tuple[int, ...]
    seed: int


class Images(Dataset[dict[str, Tensor]]):
    """Decoded and augmented images as uint8 by :class:`Item`, so that workers do not change the result.

    JPEG files are decoded no larger than ``enough`` pixels of height and width need.
    """

    def __init__(
        self,
        split: ImageSet,
        augment: v2.Transform,
        enough: int,
        views: int = 1,
        view_policy: v2.Transform | None = None,
    ) -> None:
        self.split, self.augment, self.enough = split, augment, enough
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
        self, data: DataBundle, plan: BatchPlan, device: torch.device, config: DataConfig, workers: int = 2
    ) -> None:
        views, name = plan.needs.views, plan.needs.view_policy
        view_policy = None if name is None else IMAGE_POLICIES[name](data.image_size)
        images = Images(data.train, augmentation(data, config), data.preprocess.enough, views, view_policy)
        self.plan, self.device = plan, device
        self.batches = WorkerBatches(images, data.preprocess, device, workers)
        self.policy = BATCH_POLICIES.get(config.augment)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        seeds = self.plan.seeds(epoch)
        indices = torch.from_numpy(anchors).to(self.device)
        items = [
            [Item(*item) for item in zip(row, map(tuple, others), drawn, strict=True)]
            for row, others, drawn in zip(
                anchors[start:].tolist(), partners[start:].tolist(), seeds[start:].tolist(), strict=True
            )
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
            if self.plan.needs.slots:
                samples["slots"] = torch.from_numpy(self.plan.slots).to(self.device)
            yield Batch(images, labels, samples)

    def _erase(self, images: Tensor, augment: Augment) -> Tensor:
        assert self.policy is not None
        return self.policy(images, lambda numbers: augment.uniform(numbers, len(images)), self.batches.normalise.mean)


class WorkerTestLoader:
    """Every file of this process's part once, in order; the last batch may be smaller, and that of no file is empty."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, workers: int, batch_size: int = 64,
        world: World | None = None,
    ) -> None:  # fmt: skip
        images = Images(split, data.preprocess.crop(), data.preprocess.enough)
        world = world or World()
        items = [Item(i, (), 0) for i in range(world.rank, len(split), world.size)]
        self.items = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        self.batches = WorkerBatches(images, data.preprocess, device, workers)
        size = data.image_size
        self.none = torch.empty(0, 3, size, size, device=device), torch.empty(0, dtype=torch.long, device=device)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def number(self) -> int:
        """Images."""
        return sum(map(len, self.items))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.items:
            yield self.none
            return
        for samples in self.batches.load(self.items):
            yield samples["images"], samples["labels"]


class WorkerBatches:
    """Batches of a data set of uint8 images on the device, normalised there; the workers stay between epochs.

    Each sample holds ``labels``, and images under other names.
    """

    def __init__(self, images: Dataset[Any], preprocess: Preprocess, device: torch.device, workers: int) -> None:
        self.asked = Asked()
        self.device, self.normalise = device, Normalise(preprocess, device)
        self.loader = DataLoader(
            images, batch_sampler=self.asked, num_workers=workers, pin_memory=device.type == "cuda",
            persistent_workers=workers > 0, worker_init_fn=_one_thread,
        )  # fmt: skip

    def load(self, items: Iterable[list[Any]]) -> Iterator[dict[str, Tensor]]:
        """The samples of each of ``items``, in order; fp32 ``images``, and ``views`` and ``partners`` if there are.

        Of ``items`` only the next few are taken ahead of their samples.
        """
        self.asked.items = items
        try:
            for samples in ahead(self.loader, self.device):
                labels = samples.pop("labels")
                yield {"labels": labels, **{name: self._normalised(x) for name, x in samples.items()}}
        except UserError as error:  # from a worker it comes behind that process's traceback
            raise UserError(str(error).splitlines()[-1].split("UserError: ", 1)[-1]) from None

    def _normalised(self, x: Tensor) -> Tensor:
        return self.normalise(x) if x.ndim == 4 else self.normalise(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Asked:
    """What a loader is asked for next: it can be set anew for each epoch."""

    def __init__(self) -> None:
        self.items: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.items)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
