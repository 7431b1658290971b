"""DDGSD, AugMix with its loss, CS-KD alone and with mixup, against loops over images."""

from __future__ import annotations

import copy
import math

import torch

from mixskd import CSKD, DDGSD, AugMixJSD, CSKDMixup
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, kl, soft_cross_entropy, softmax
from tests.methods.support import batch, check, features, logits


def test_ddgsd() -> None:
    images, labels = batch()
    views = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
    both = torch.cat([images, views[:, 0]])  # one forward, so that batch norm sees both

    def reference(moving, fixed) -> float:
        z, q = logits(moving.backbone, both).tolist(), logits(fixed.backbone, both).tolist()
        e = features(moving.backbone, both).tolist()
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            loss += cross_entropy(z[i], y) + cross_entropy(z[4 + i], y)
            loss += 0.7 * (kl(z[i], q[4 + i], 2.0) + kl(z[4 + i], q[i], 2.0))
        apart = [sum(e[i][d] for i in range(4)) / 4 - sum(e[4 + i][d] for i in range(4)) / 4 for d in range(len(e[0]))]
        return loss / 4 + 50 * sum(d**2 for d in apart)

    method = DDGSD(make_toy(), temperature=2.0, lam=0.7, mu=50.0)
    assert method.needs.views == 2
    assert method.needs.view_policy is None
    check(method, reference, images, labels, views=views)


def test_augmix_jsd() -> None:
    images, labels = batch()
    views = torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    three = torch.cat([images, views[:, 0], views[:, 1]])

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, three).tolist()
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            p = [softmax(z[i + 4 * v]) for v in range(3)]
            mean = [sum(q[n] for q in p) / 3 for n in range(5)]
            jsd = sum(q[n] * math.log(q[n] / mean[n]) for q in p for n in range(5)) / 3
            loss += cross_entropy(z[i], y) + 12 * jsd
        return loss / 4

    method = AugMixJSD(make_toy())
    assert (method.needs.views, method.needs.view_policy) == (3, "augmix")
    check(method, reference, images, labels, views=views)


def test_cskd() -> None:
    images, labels = batch()
    partners = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)

    def reference(moving, fixed) -> float:
        z, q = logits(moving.backbone, images).tolist(), logits(fixed.backbone, partners[:, 0]).tolist()
        return sum(cross_entropy(z[i], y) + 3 * kl(z[i], q[i], 4.0) for i, y in enumerate(labels.tolist())) / 4

    method = CSKD(make_toy(), weight=3.0)
    check(method, reference, images, labels, partners=partners)


def test_cskd_partners_update_running_statistics() -> None:
    images, labels = batch()
    partners = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
    method = CSKD(make_toy())
    twin = copy.deepcopy(method.backbone)
    method(images, labels, partners=partners)
    twin(images)
    twin(partners[:, 0])
    for a, b in zip(method.backbone.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(a, b)


def test_cskd_mixup_mixes_images_and_partners_alike() -> None:
    images, labels = batch()
    partners = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
    lam, permutation = 0.3, [2, 0, 3, 1]
    blend = lambda x: torch.stack([lam * x[i] + (1 - lam) * x[j] for i, j in enumerate(permutation)])  # noqa: E731

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, blend(images)).tolist()
        q = logits(fixed.backbone, blend(partners[:, 0])).tolist()
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            other = int(labels[permutation[i]])
            target = [lam * (n == y) + (1 - lam) * (n == other) for n in range(5)]
            loss += soft_cross_entropy(z[i], target) + kl(z[i], q[i], 4.0)
        return loss / 4

    mix = Mix(torch.tensor(lam, dtype=torch.float64), torch.tensor(permutation))
    check(CSKDMixup(make_toy()), reference, images, labels, mix, partners=partners)
