"""MixSKD with a head that is not linear, a pooling that is no average, or a class token: the equations, literally."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mixskd import build_backbone
from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import TokenMap
from mixskd.methods.mixskd import MixSKD
from mixskd.methods.parts.losses import feature_distance
from mixskd.methods.parts.mixing import Mix, sample_mix

T = 3.0


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def deep_net() -> StagedBackbone:
    """Three stages, pooling by the maximum, a head of two layers with an activation between them."""
    stages = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.Tanh()) for a, b in ((3, 4), (4, 6), (6, 5))]
    head = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 4))
    return StagedBackbone(stages, head, name="deep", pool=Largest())


def parts(feature_map: Tensor | TokenMap) -> list[Tensor]:
    return [feature_map] if isinstance(feature_map, Tensor) else [feature_map.grid, feature_map.prefix]


def pool(parts: list[Tensor]) -> Tensor:
    return parts[0].amax((2, 3)) if len(parts) == 1 else parts[1][:, :, 0]  # the class token


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = (student / T).softmax(1), (teacher / T).softmax(1)
    return T**2 * (q * (q.log() - p.log())).sum(1).mean()


@pytest.mark.parametrize("name", ["deep", "timm/test_vit"])
def test_every_term_follows_its_equation_for_deep_heads_and_tokens(name: str) -> None:
    backbone = deep_net() if name == "deep" else build_backbone(name, 4, 32)
    method = MixSKD(backbone).double().eval()
    images, labels = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([2, 0, 1])
    lam, order = 0.3, torch.tensor([1, 2, 0])
    out = method(images, labels, Mix(torch.tensor(lam, dtype=torch.float64), order))

    def mixed(x: Tensor) -> Tensor:
        return lam * x + (1 - lam) * x[order]

    def soft(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        return -sum(lam * log_p[i, labels[i]] + (1 - lam) * log_p[i, labels[j]] for i, j in enumerate(order)) / 3

    originals = [parts(f) for f in method.branches(backbone.feature_maps(images))]
    mixes = [parts(f) for f in method.branches(backbone.feature_maps(mixed(images)))]
    interpolated = [[mixed(x) for x in f] for f in originals]
    heads = [*method.branches.heads, backbone.head]
    z, z_m = ([head(pool(f)) for head, f in zip(heads, maps, strict=True)] for maps in (originals, mixes))
    z_i = [mixed(x) for x in z]
    h = method.self_teacher
    h_i, h_m = (h.classifier(h.projection(torch.cat([pool(f) for f in maps], 1))) for maps in (interpolated, mixes))
    squares = [
        sum((a - b).square().sum() for a, b in zip(i, m, strict=True)) / sum(a.numel() for a in i)
        for i, m in zip(interpolated, mixes, strict=True)
    ]
    towers = method.discriminators.towers
    judged = [
        -(d(pool(i)).sigmoid().log() + (1 - d(pool(m)).sigmoid()).log()).mean()
        for d, i, m in zip(towers, interpolated, mixes, strict=True)
    ]
    expected = {
        "cls": sum(-x.log_softmax(1)[range(3), labels].mean() for x in z),
        "cls_mix": sum(soft(x) for x in z_m),
        "feature": sum(squares),
        "discriminator": sum(judged),
        "branch_logit": sum(kl(a, b) + kl(b, a) for a, b in zip(z_i[:-1], z_m[:-1], strict=True)),
        "teacher_cls": soft(h_i) + soft(h_m),
        "teacher_logit": kl(z_i[-1], h_m) + kl(z_m[-1], h_i),
    }
    for key, value in expected.items():
        assert out[key].item() == pytest.approx(value.item(), rel=1e-8), key
    assert math.isfinite(out["loss"].item())


def test_deep_head_does_not_commute_with_mixing() -> None:
    """Eq. 9 mixes logits; the head of the mixed map gives others, where the head is not linear."""
    backbone = deep_net().double()
    f = backbone.feature_maps(torch.randn(3, 3, 16, 16, dtype=torch.float64))[-1]
    mix = Mix(torch.tensor(0.3, dtype=torch.float64), torch.tensor([1, 2, 0]))
    assert not torch.allclose(mix(backbone.head(backbone.pooled(f))), backbone.head(backbone.pooled(mix(f))))


def test_cutmix_mixes_class_token_by_area() -> None:
    images = torch.randn(4, 3, 8, 8)
    mix = sample_mix(images, 1.0, "cutmix", generator=torch.Generator().manual_seed(1))
    feature_map = TokenMap(torch.randn(4, 5, 8, 8), torch.randn(4, 5, 1))
    result = mix(feature_map)
    assert isinstance(result, TokenMap)
    assert torch.equal(result.grid, mix(feature_map.grid))
    other = feature_map.prefix[mix.permutation]
    assert torch.allclose(result.prefix, mix.lam * feature_map.prefix + (1 - mix.lam) * other)


def test_feature_distance_counts_class_token_as_position() -> None:
    a, b = (TokenMap(torch.randn(2, 3, 2, 2), torch.randn(2, 3, 1)) for _ in range(2))
    total = (a.grid - b.grid).square().sum() + (a.prefix - b.prefix).square().sum()
    assert feature_distance(a, b).item() == pytest.approx(total.item() / (2 * 3 * 5), rel=1e-5)
