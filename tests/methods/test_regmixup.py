"""RegMixup against a loop over images."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from mixskd import RegMixup, UserError
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, soft_cross_entropy
from tests.methods.support import batch, check, logits

LAM, PERMUTATION = 0.3, [2, 0, 3, 1]


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_regmixup_uses_one_forward_for_originals_and_mixes(weight: float) -> None:
    images, labels = batch()
    mixed = torch.stack([LAM * images[i] + (1 - LAM) * images[j] for i, j in enumerate(PERMUTATION)])

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, torch.cat([images, mixed])).tolist()  # batch norm sees both
        loss = 0.0
        for i, j in enumerate(PERMUTATION):
            target = [LAM * (n == int(labels[i])) + (1 - LAM) * (n == int(labels[j])) for n in range(5)]
            loss += (cross_entropy(z[i], int(labels[i])) + weight * soft_cross_entropy(z[4 + i], target)) / 4
        return loss

    mix = Mix(torch.tensor(LAM, dtype=torch.float64), torch.tensor(PERMUTATION))
    out = check(RegMixup(make_toy(), weight=weight), reference, images, labels, mix)
    assert out["output"].shape == (4, 5)


def test_regmixup_draws_lambda_from_beta_10() -> None:
    method, generator = RegMixup(make_toy()), torch.Generator().manual_seed(0)
    lams = [method.draw(torch.zeros(3, 3, 4, 4), generator).lam.item() for _ in range(600)]
    assert stats.kstest(lams, stats.beta(10, 10).cdf).pvalue > 1e-3


def test_regmixup_with_cutmix() -> None:
    method = RegMixup(make_toy(), mix="cutmix", alpha=1.0)
    images, labels = batch()
    assert method.draw(images).box is not None
    assert method(images, labels)["loss"].isfinite()
    with pytest.raises(UserError, match="did you mean 'cutmix'"):
        RegMixup(make_toy(), mix="cutmx")
