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

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import Augment
from mixskd.data.images import decode_image
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES
from mixskd.distributed import World
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


def eval_transform(image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """The whole image at 64 px or less; else the centre after a resize of the short side by 256/224, as the paper."""
    if image_size <= 64:
        steps: list[Any] = [v2.Resize((image_size, image_size), antialias=True)]
    else:
        steps = [v2.Resize(round(image_size * 256 / 224), antialias=True), v2.CenterCrop(image_size)]
    return v2.Compose([*steps, normalisation(mean, std)])


def normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """An image as a tensor, (x / 255 - mean) / std."""
    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])


class Item(NamedTuple):
    """What is asked of the data set: an anchor, its partners, and the seed of all that is random about them."""

    anchor: int
    partners: tuple[int, ...]
    seed: int


class Images(Dataset[dict[str, Tensor]]):
    """Decoded images by :class:`Item`, augmented, then made tensors, so that workers do not change the result."""

    def __init__(
        self,
        split: ImageSet,
        augment: v2.Transform,
        to_tensor: v2.Transform,
        views: int = 1,
        view_policy: v2.Transform | None = None,
    ) -> None:
        self.split, self.augment, self.to_tensor = split, augment, to_tensor
        self.views, self.view_policy = views, view_policy

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        image = self.open(item.anchor)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(item.seed)
            first = self.augment(image)
            sample = {"images": self.to_tensor(first), "labels": torch.tensor(int(self.split.labels[item.anchor]))}
            if self.views > 1:
                sample["views"] = torch.stack([self.to_tensor(self.view(image, first)) for _ in range(self.views - 1)])
            if item.partners:
                partners = [self.to_tensor(self.augment(self.open(i))) for i in item.partners]
                sample["partners"] = torch.stack(partners)
        return sample

    def view(self, image: Image.Image, first: Image.Image) -> Image.Image:
        """A view after the first: augmented anew from ``image``, or from ``first`` by the policy for views."""
        return self.augment(image) if self.view_policy is None else self.view_policy(first)

    def open(self, index: int) -> Image.Image:
        image = self.split.images[index]
        return Image.fromarray(image) if isinstance(image, np.ndarray) else decode_image(image)


class WorkerLoader:
    """Shuffled batches; order and augmentation follow from (seed, epoch, step) alone."""

    def __init__(
        self, data: DataBundle, plan: BatchPlan, device: torch.device, policy: str = "none", workers: int = 2
    ) -> None:
        views, name = plan.needs.views, plan.needs.view_policy
        view_policy = None if name is None else IMAGE_POLICIES[name](data.image_size)
        to_tensor = normalisation(data.mean, data.std)
        self.images = Images(data.train, augmentation(data, policy), to_tensor, views, view_policy)
        self.plan, self.device, self.workers = plan, device, workers
        self.policy = BATCH_POLICIES.get(policy)
        self.mean = torch.tensor(data.mean, device=device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from step ``start`` on."""
        anchors, partners = self.plan.epoch(epoch)
        seeds = np.random.default_rng([self.plan.seed, epoch, 1]).integers(2**62, size=len(self.images.split))
        batches = [
            [Item(a, tuple(p), int(seeds[a])) for a, p in zip(row.tolist(), others.tolist(), strict=True)]
            for row, others in zip(anchors[start:], partners[start:], strict=True)
        ]
        for step, samples in enumerate(_loader(self.images, self.device, self.workers, batch_sampler=batches), start):
            samples = _on_device(samples, self.device)
            images, labels = samples.pop("images"), samples.pop("labels")
            if self.policy is not None:
                augment = Augment(self.plan, self.device, epoch, step)
                images = self._erase(images, augment)
                samples = {
                    name: self._erase(x.flatten(0, 1), augment).unflatten(0, x.shape[:2]) for name, x in samples.items()
                }
            if self.plan.needs.indices:
                samples["indices"] = torch.from_numpy(anchors[step]).to(self.device)
            yield Batch(images, labels, samples)

    def _erase(self, images: Tensor, augment: Augment) -> Tensor:
        assert self.policy is not None
        return self.policy(images, lambda numbers: augment.uniform(numbers, len(images)), self.mean)


class WorkerTestLoader:
    """Every file of this process's part once, in order; the last batch may be smaller."""

    def __init__(
        self, data: DataBundle, split: ImageSet, device: torch.device, workers: int, batch_size: int = 64,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.images = Images(split, v2.Identity(), eval_transform(data.image_size, data.mean, data.std))
        world = world or World()
        items = [Item(i, (), 0) for i in range(world.rank, len(split), world.size)]
        self.batches = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        self.device, self.workers = device, workers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for samples in _loader(self.images, self.device, self.workers, batch_sampler=self.batches):
            samples = _on_device(samples, self.device)
            yield samples["images"], samples["labels"]


def _loader(images: Images, device: torch.device, workers: int, batch_sampler: Any) -> DataLoader[Any]:
    return DataLoader(
        images, batch_sampler=batch_sampler, num_workers=workers, pin_memory=device.type == "cuda",
        worker_init_fn=_one_thread,
    )  # fmt: skip


def _on_device(samples: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    samples = {name: x.to(device, non_blocking=True) for name, x in samples.items()}
    samples["images"] = samples["images"].contiguous(memory_format=torch.channels_last)
    return samples


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
