"""Mixup and CutMix in turn, against explicit mixes, and how often each is drawn."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from mixskd import MixupCutMix
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods.reference import soft_cross_entropy
from tests.methods.support import batch, check, logits
from tests.methods.test_mixed_methods import PERMUTATION, target

FULL, EMPTY = (1, 4, 2, 8), (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_each_kind_is_its_explicit_mix(kind: str) -> None:
    images, labels = batch()
    lam = 0.3 if kind == "mixup" else 1 - 18 / 64
    if kind == "mixup":
        mixed = lam * images + (1 - lam) * images[PERMUTATION]
    else:
        mixed = images.clone()
        mixed[:, :, 1:4, 2:8] = images[PERMUTATION][:, :, 1:4, 2:8]

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, mixed).tolist()
        return sum(soft_cross_entropy(z[i], target(labels, i, lam)) for i in range(4)) / 4

    def as_mix(chosen: bool, box: tuple[int, ...] | None = None) -> Mix:
        value = torch.tensor(lam if chosen else 1.0, dtype=torch.float64)
        where = None if box is None else torch.tensor(box)
        return Mix(value, torch.tensor(PERMUTATION), where, (8, 8))

    draws = as_mix(kind == "mixup"), as_mix(kind == "cutmix", FULL if kind == "cutmix" else EMPTY)
    check(MixupCutMix(make_toy()), reference, images, labels, draws)


def test_one_of_the_two_is_drawn_with_its_probability() -> None:
    images = torch.randn(4, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    method = MixupCutMix(make_toy(), cutmix_probability=0.3)
    draws = [method.draw(images, generator) for _ in range(600)]
    pasted = [pair for pair in draws if pair[0].lam == 1]
    blended = [pair for pair in draws if pair[0].lam < 1]
    assert stats.binomtest(len(pasted), len(draws), 0.3).pvalue > 1e-3
    assert all(not cutmix.box.any() and cutmix.lam == 1 for _, cutmix in blended)
    assert all(torch.equal(mixup.permutation, cutmix.permutation) for mixup, cutmix in draws)
    assert stats.kstest([float(mixup.lam) for mixup, _ in blended], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    for pair in (pasted[0], blended[0]):
        (mix,) = method.image_mixes(pair)
        assert torch.equal(mix(images), pair[1](pair[0](images)))
