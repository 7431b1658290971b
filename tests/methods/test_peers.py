"""Baseline, deep supervision and mixup against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mixskd import Baseline, DeepSupervision, Mixup, UserError
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2, 4, 1])


def nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([-(z - z.exp().sum().log())[y] for z, y in zip(logits, labels, strict=True)]).mean()


def test_baseline() -> None:
    images, labels = batch()
    method = Baseline(make_toy())
    out = method(images, labels)
    assert torch.allclose(out["loss"], nll(method.backbone(images), labels))


def test_deep_supervision_sums_over_all_heads() -> None:
    images, labels = batch()
    method = DeepSupervision(make_toy()).double()
    out = method(images, labels)
    x, expected = images, torch.zeros((), dtype=torch.float64)
    for k, stage in enumerate(method.backbone.stages):
        x = stage(x)
        last = k == len(method.backbone.stages) - 1
        aligned = x if last else method.branches.alignments[k](x)
        head = method.backbone.head if last else method.branches.heads[k]
        expected = expected + nll(head(aligned.mean((2, 3))), labels)
    assert torch.allclose(out["loss"], expected)


def test_mixup() -> None:
    images, labels = batch()
    method = Mixup(make_toy())
    mix = Mix(torch.tensor(0.25, dtype=torch.float64), torch.tensor([3, 0, 1, 2]))
    mixed = 0.25 * images + 0.75 * images[[3, 0, 1, 2]]
    z = method.backbone(mixed)
    expected = 0.25 * F.cross_entropy(z, labels) + 0.75 * F.cross_entropy(z, labels[[3, 0, 1, 2]])
    assert torch.allclose(method(images, labels, mix)["loss"], expected)


def test_method_rejects_plain_module() -> None:
    with pytest.raises(UserError, match="build_backbone"):
        Baseline(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
