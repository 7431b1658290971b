"""Manifold mixup and CutMix against explicit mixes, and how often they draw what."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from mixskd import CutMix, ManifoldMixup
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods.reference import soft_cross_entropy, softmax
from tests.methods.support import batch, check, logits

LAM, PERMUTATION = 0.3, [2, 0, 3, 1]


def target(labels, i: int, lam: float = LAM) -> list[float]:
    other = int(labels[PERMUTATION[i]])
    return [lam * (n == int(labels[i])) + (1 - lam) * (n == other) for n in range(5)]


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_manifold_mixup_mixes_at_one_place(place: int, loss: str) -> None:
    images, labels = batch()

    def reference(moving, fixed) -> float:
        x = images
        for k, stage in enumerate([torch.nn.Identity(), *moving.backbone.stages]):
            x = stage(x)
            if k == place:
                x = torch.stack([LAM * x[i] + (1 - LAM) * x[j] for i, j in enumerate(PERMUTATION)])
        z = (x.mean((2, 3)) @ moving.backbone.head.weight.T + moving.backbone.head.bias).tolist()
        total = 0.0
        for i in range(4):
            t = target(labels, i)
            if loss == "ce":
                total += soft_cross_entropy(z[i], t) / 4
            else:
                total -= sum(
                    y * math.log(p) + (1 - y) * math.log(1 - p) for y, p in zip(t, softmax(z[i]), strict=True)
                ) / (4 * 5)
        return total

    mix = Mix(torch.tensor(LAM, dtype=torch.float64), torch.tensor(PERMUTATION))
    method = ManifoldMixup(make_toy(), depth=3, loss=loss)
    check(method, reference, images, labels, (mix, torch.tensor(place)))


def test_manifold_mixup_draws_places_uniformly() -> None:
    method = ManifoldMixup(make_toy())
    assert (method.config.depth, method.config.alpha) == (2, 2.0)
    generator = torch.Generator().manual_seed(0)
    draws = [method.draw(torch.zeros(3, 3, 4, 4), generator) for _ in range(900)]
    counts = torch.bincount(torch.stack([place for _, place in draws]), minlength=3)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    lams = torch.stack([mix.lam for mix, _ in draws]).numpy()
    assert stats.kstest(lams, stats.beta(2, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("box", [(1, 4, 2, 8), (0, 0, 0, 0), (0, 8, 0, 8)])
def test_cutmix(box: tuple[int, int, int, int]) -> None:
    images, labels = batch()
    top, bottom, left, right = box
    lam = 1 - (bottom - top) * (right - left) / 64
    pasted = images.clone()
    for i, j in enumerate(PERMUTATION):
        pasted[i, :, top:bottom, left:right] = images[j, :, top:bottom, left:right]

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, pasted).tolist()
        return sum(soft_cross_entropy(z[i], target(labels, i, lam)) for i in range(4)) / 4

    mix = Mix(torch.tensor(lam, dtype=torch.float64), torch.tensor(PERMUTATION), torch.tensor(box), (8, 8))
    check(CutMix(make_toy()), reference, images, labels, mix)


def test_cutmix_mixes_half_of_the_batches() -> None:
    images = torch.randn(4, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    method = CutMix(make_toy())
    draws = [method.draw(images, generator) for _ in range(600)]
    left_alone = [mix for mix in draws if not mix.box.any()]
    # a box of less than a pixel is empty as well, in about 1 of 1,000 draws
    assert stats.binomtest(len(left_alone), len(draws), 0.5).pvalue > 1e-3
    assert all(mix.lam == 1 and torch.equal(mix(images), images) for mix in left_alone)
    assert all(mix.box.any() for mix in (CutMix(make_toy(), probability=1.0).draw(images) for _ in range(20)))
