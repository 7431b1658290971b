"""The mix operator against loops over pixels, and its draws against their distributions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from mixskd.methods.parts.mixing import Mix, sample_beta, sample_mix


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.integers(1, 6), lam=st.floats(0, 1), classes=st.integers(2, 9))
def test_mixup_is_convex_sum(batch: int, lam: float, classes: int) -> None:
    x = torch.randn(batch, 2, 3, 3, dtype=torch.float64)
    labels = torch.randint(classes, (batch,))
    mix = Mix(torch.tensor(lam, dtype=torch.float64), torch.randperm(batch))
    for i, j in enumerate(mix.permutation.tolist()):
        assert torch.allclose(mix(x)[i], lam * x[i] + (1 - lam) * x[j])
    onehot = torch.eye(classes, dtype=torch.float64)[labels]
    target = torch.stack([lam * onehot[i] + (1 - lam) * onehot[j] for i, j in enumerate(mix.permutation.tolist())])
    assert torch.allclose(mix.labels(labels, classes), target)


def test_lambda_one_returns_input_exactly() -> None:
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(Mix(torch.tensor(1.0), torch.randperm(4))(x), x)


@pytest.mark.parametrize("size", [4, 8, 7])
def test_cutmix_pastes_box_on_images_and_area_on_maps(size: int) -> None:
    images = torch.randn(3, 2, 16, 16, dtype=torch.float64)
    for _ in range(20):
        mix = sample_mix(images, 1.0, "cutmix")
        top, bottom, left, right = (int(v) for v in mix.box.tolist())
        expected = images.clone()
        expected[:, :, top:bottom, left:right] = images[mix.permutation][:, :, top:bottom, left:right]
        assert torch.equal(mix(images), expected)
        assert mix.lam.item() == pytest.approx(1 - (bottom - top) * (right - left) / 256)
        # a fine grid of 112 x 112 points that every tested map size divides, 16 included
        fine = torch.zeros(112, 112)
        fine[top * 7 : bottom * 7, left * 7 : right * 7] = 1
        cell = 112 // size
        share = fine.reshape(size, cell, size, cell).mean((1, 3))
        assert torch.allclose(mix.coverage(size, size).float(), share, atol=1e-6)
        assert mix.coverage(size, size).mean().item() == pytest.approx(1 - mix.lam.item(), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 8.0])
def test_lambda_follows_beta_distribution(alpha: float) -> None:
    draws = sample_beta(alpha, (4000,), torch.device("cpu"), torch.Generator().manual_seed(1))
    assert stats.kstest(draws.double().clamp(1e-12, 1 - 1e-7).numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_tiny_alpha_gives_fair_coin() -> None:
    draws = sample_beta(1e-5, (2000,), torch.device("cpu"), torch.Generator().manual_seed(1))
    assert draws.isfinite().all()
    assert draws.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_derangement_has_no_fixed_point(batch: int) -> None:
    for _ in range(50):
        permutation = sample_mix(torch.zeros(batch, 1, 2, 2), 1.0, derangement=True).permutation
        assert sorted(permutation.tolist()) == list(range(batch))
        assert not (permutation == torch.arange(batch)).any()


def test_per_sample_lambda() -> None:
    mix = sample_mix(torch.zeros(5, 1, 2, 2), 1.0, per_sample=True)
    assert len(set(mix.lam.tolist())) == 5
    x = torch.randn(5, 3, dtype=torch.float64)
    for i, (lam, j) in enumerate(zip(mix.lam.tolist(), mix.permutation.tolist(), strict=True)):
        assert torch.allclose(mix(x)[i], lam * x[i] + (1 - lam) * x[j])
