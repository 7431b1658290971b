"""Policies against their definitions, and that they reach images, views and partners in both loaders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from mixskd.config import DataConfig
from mixskd.data import load_data, make_train_loader
from mixskd.data.batch import Batch
from mixskd.data.bundle import DataBundle
from mixskd.data.device_loader import DeviceLoader
from mixskd.data.needs import DataNeeds
from mixskd.data.policies import BATCH_POLICIES, IMAGE_POLICIES, POLICIES, cutout, random_erasing
from mixskd.data.worker_loader import WorkerLoader

CPU = torch.device("cpu")
MEAN = torch.tensor([0.25, 0.5, 0.75])


def box(changed: torch.Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the changed pixels (``H x W``), which must fill their box."""
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    assert changed[top:bottom, left:right].all()
    assert changed.sum() == (bottom - top) * (right - left)
    return top, bottom, left, right


def test_cutout_is_one_clipped_square_with_a_uniform_centre() -> None:
    images = torch.ones(4000, 3, 32, 32)
    holes = cutout(images, torch.rand(2, 4000), MEAN) == 0
    assert torch.equal(holes[:, 0], holes[:, 2])
    counts = torch.zeros(32, 32)
    for hole in holes[:, 0]:
        top, bottom, left, right = box(hole)
        # a side of 8 unless the border cuts it, to 4 at least
        assert bottom - top == 8 or (top == 0 and bottom >= 4) or (bottom == 32 and top <= 29)
        y = bottom - 4 if top == 0 else top + 4
        x = right - 4 if left == 0 else left + 4
        counts[y, x] += 1
    assert stats.chisquare(counts.sum(0).numpy()).pvalue > 1e-4
    assert stats.chisquare(counts.sum(1).numpy()).pvalue > 1e-4


def test_random_erasing_fills_a_box_of_the_right_area_and_aspect() -> None:
    count, size = 3000, 32
    images = torch.full((count, 3, size, size), 9.0)
    out = random_erasing(images, torch.rand(BATCH_POLICIES["random_erasing"].draws, count), MEAN)
    changed = (out != 9.0).any(1)
    erased = changed.flatten(1).any(1)
    assert stats.binomtest(int(erased.sum()), count, 0.5).pvalue > 1e-4
    shares, aspects = [], []
    for image, hole in zip(out[erased], changed[erased], strict=True):
        top, bottom, left, right = box(hole)
        assert torch.equal(image[:, top, left], MEAN)
        height, width = bottom - top, right - left
        assert height < size
        assert width < size
        shares.append(height * width / size**2)
        aspects.append(height / width)
    assert 0.015 < min(shares) < 0.04
    assert 0.3 < max(shares) < 0.42
    # sides are rounded to pixels, so a small box can have a slightly more extreme aspect
    assert 0.25 < min(aspects) < 0.4
    assert 2.5 < max(aspects) < 4
    # aspect is uniform in 0.3 to 3.33 for boxes that always fit: half of it lies under 1.82
    small = np.array([a for a, s in zip(aspects, shares, strict=True) if s < 0.2])
    assert stats.binomtest(int((small < (0.3 + 1 / 0.3) / 2).sum()), len(small), 0.5).pvalue > 1e-4


def test_every_policy_has_the_authors_settings() -> None:
    policies = {name: make(32) for name, make in IMAGE_POLICIES.items()}
    policy = v2.AutoAugmentPolicy
    assert policies["autoaugment"].policy == policies["autoaugment_cifar10"].policy == policy.CIFAR10
    assert IMAGE_POLICIES["autoaugment"](224).policy == policies["autoaugment_imagenet"].policy == policy.IMAGENET
    assert policies["autoaugment_svhn"].policy == policy.SVHN
    assert (policies["randaugment"].num_ops, policies["randaugment"].magnitude) == (2, 14)
    augmix = policies["augmix"]
    assert (augmix.severity, augmix.mixture_width, augmix.chain_depth, augmix.alpha) == (3, 3, -1, 1.0)
    assert not augmix.all_ops
    assert policies["trivialaugment"].num_magnitude_bins == 31


def flat(npz: Path) -> DataBundle:
    """Images of one colour, which neither crop nor flip changes but at the black border; no flip."""
    data = load_data(DataConfig(source=str(npz)))
    images = np.full_like(data.train.images, 1) * np.arange(20, 200, 15, dtype=np.uint8)[:, None, None, None]
    splits = {**data.splits, "train": dataclasses.replace(data.train, images=images)}
    return dataclasses.replace(data, splits=splits, flip=False)


def batch_of(data: DataBundle, policy: str, needs: DataNeeds, epoch: int = 0) -> Batch:
    loader = make_train_loader(data, DataConfig(augment=policy, workers=0), 12, CPU, 0, needs)
    return next(iter(loader.epoch(epoch)))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
def test_policies_apply_to_images_views_and_partners(policy: str, npz: Path) -> None:
    data = load_data(DataConfig(source=str(npz)))
    needs = DataNeeds(views=2, partners=2, indices=True)
    changed = {"images": 0, "views": 0, "partners": 0}
    for epoch in range(2):
        plain, augmented = (batch_of(data, name, needs, epoch) for name in ("none", policy))
        assert torch.equal(plain.labels, augmented.labels)
        for name in changed:
            x = augmented.images if name == "images" else augmented.extra[name]
            y = plain.images if name == "images" else plain.extra[name]
            assert x.shape == y.shape
            changed[name] += int((x != y).flatten(1).any(1).sum())
    assert min(changed.values()) > 4, changed


@pytest.mark.parametrize("kind", ["arrays", "workers"])
def test_views_are_augmented_independently(kind: str, npz: Path) -> None:
    data = load_data(DataConfig(source=str(npz)))
    policy = "none" if kind == "arrays" else "trivialaugment"
    loader = make_train_loader(data, DataConfig(augment=policy, workers=0), 12, CPU, 0, DataNeeds(views=3))
    assert type(loader) is (DeviceLoader if kind == "arrays" else WorkerLoader)
    one = next(iter(loader.epoch(0)))
    views = [one.images, *one.extra["views"].unbind(1)]
    for a in range(3):
        for b in range(a):
            # of 9 crops and 2 flips two are the same in 1 of 18
            assert (views[a] != views[b]).flatten(1).any(1).sum() > 6


def test_partners_are_images_of_the_class(npz: Path) -> None:
    """In images of one colour the colour tells which image a partner is."""
    data = flat(npz)
    for policy in ("none", "augmix"):
        needs = DataNeeds(partners=3, distinct_partners=True, indices=True)
        loader = make_train_loader(data, DataConfig(workers=0, augment="none"), 12, CPU, 0, needs)
        if policy == "augmix":
            loader = WorkerLoader(data, loader.plan, CPU, DataConfig(), workers=0)
        got = next(iter(loader.epoch(0)))
        centre = lambda x: (x[..., 4, 4] * torch.tensor(data.std) + torch.tensor(data.mean)) * 255  # noqa: E731
        colours = torch.from_numpy(np.asarray(data.train.images)[:, 4, 4, 0]).float()
        assert torch.allclose(centre(got.images)[:, 0], colours[got.extra["indices"]], atol=0.01)
        for i, index in enumerate(got.extra["indices"].tolist()):
            found = {int((colours - c).abs().argmin()) for c in centre(got.extra["partners"][i])[:, 0]}
            same = np.flatnonzero(data.train.labels == data.train.labels[index]).tolist()
            assert found == set(same) - {index}


def test_augmix_views_share_crop_and_flip_with_their_image(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AugMix replaced by the identity all three views are the same image."""
    monkeypatch.setitem(IMAGE_POLICIES, "augmix", lambda size: v2.Identity())
    data = load_data(DataConfig(source=str(npz)))
    needs = DataNeeds(views=3, view_policy="augmix")
    for policy in ("none", "trivialaugment", "cutout"):
        got = batch_of(data, policy, needs)
        if policy in BATCH_POLICIES:
            assert not torch.equal(got.images, got.extra["views"][:, 0])
        else:
            assert torch.equal(got.images, got.extra["views"][:, 0])
            assert torch.equal(got.images, got.extra["views"][:, 1])


def test_augmix_views_are_mixed_and_their_image_is_not(npz: Path) -> None:
    data = load_data(DataConfig(source=str(npz)))
    plain = WorkerLoader(data, make_train_loader(data, DataConfig(), 12, CPU, 0).plan, CPU, DataConfig(), workers=0)
    got = batch_of(data, "none", DataNeeds(views=3, view_policy="augmix"))
    assert torch.equal(got.images, next(iter(plain.epoch(0))).images)
    first, second = got.extra["views"].unbind(1)
    for a, b in ((got.images, first), (got.images, second), (first, second)):
        assert (a != b).flatten(1).any(1).all()
