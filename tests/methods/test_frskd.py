"""FRSKD's loss against loops, and its self-teacher's sizes and fusion."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mixskd import FRSKD, FRSKDMixup, UserError, build_backbone
from mixskd.backbones import StagedBackbone
from mixskd.methods.frskd import BiFPN, Fusion, attention_map, halve
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods.reference import kl, soft_cross_entropy
from tests.methods.support import batch, check, logits


def attention_by_hand(feature_map: list) -> list[float]:
    height, width, channels = len(feature_map[0]), len(feature_map[0][0]), len(feature_map)
    energy = [
        sum(max(channel[y][x], 0.0) ** 2 for channel in feature_map) / channels
        for y in range(height)
        for x in range(width)
    ]
    norm = math.sqrt(sum(v**2 for v in energy))
    return [v / norm for v in energy]


def frskd_loss(moving, fixed, images, targets: list[list[float]], alpha: float = 2, beta: float = 100) -> float:
    maps = moving.backbone.feature_maps(images)
    _, taught = moving.self_teacher(maps)
    refined, teacher = fixed.self_teacher(fixed.backbone.feature_maps(images))
    z = logits(moving.backbone, images).tolist()
    loss = 0.0
    for i, target in enumerate(targets):
        loss += soft_cross_entropy(z[i], target) + soft_cross_entropy(taught[i].tolist(), target)
        loss += alpha * kl(z[i], teacher[i].tolist(), 4.0)
        for f, p in zip(maps, refined, strict=True):
            a, b = attention_by_hand(f[i].tolist()), attention_by_hand(p[i].tolist())
            loss += beta * sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) / len(a)
    return loss / len(targets)


def test_frskd() -> None:
    images, labels = batch()
    targets = [[float(n == y) for n in range(5)] for y in labels.tolist()]
    method = FRSKD(make_toy()).double()
    out = check(method, lambda moving, fixed: frskd_loss(moving, fixed, images, targets), images, labels)
    assert out["attention"] > 0
    assert list(method.heads(images)) == ["self_teacher", "backbone"]


def test_frskd_mixup_is_frskd_on_mixed_batch() -> None:
    images, labels = batch()
    lam, permutation = 0.3, [2, 0, 3, 1]
    mixed = torch.stack([lam * images[i] + (1 - lam) * images[j] for i, j in enumerate(permutation)])
    targets = [
        [lam * (n == int(labels[i])) + (1 - lam) * (n == int(labels[j])) for n in range(5)]
        for i, j in enumerate(permutation)
    ]
    method = FRSKDMixup(make_toy()).double()
    assert method.config.mix_alpha == 0.2
    mix = Mix(torch.tensor(lam, dtype=torch.float64), torch.tensor(permutation))
    check(method, lambda moving, fixed: frskd_loss(moving, fixed, mixed, targets), images, labels, mix)


def test_attention_map_uses_relu() -> None:
    feature_map = torch.tensor([[[[1.0, -5.0], [2.0, 0.0]], [[-7.0, 3.0], [2.0, 0.0]]]])
    energy = torch.tensor([[0.5, 4.5, 4.0, 0.0]])
    assert torch.allclose(attention_map(feature_map), energy / energy.norm())


@pytest.mark.parametrize(
    ("backbone", "width", "depth", "parameters"),
    [("cifar_resnet18", 2, 2, 6_375_794), ("cifar_resnet18", 1, 1, 1_538_866), ("wrn_16_2", 2, 2, 411_885)],
)
def test_parameters_of_the_self_teacher(backbone: str, width: int, depth: int, parameters: int) -> None:
    with torch.device("meta"):
        method = FRSKD(build_backbone(backbone, 100), width=width, depth=depth)
    assert sum(p.numel() for p in method.self_teacher.parameters()) == parameters


class Flip(nn.Module):
    """x -> 1 - x, which tells whether its input was rectified."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - x


def bare(bifpn: BiFPN) -> BiFPN:
    """Without what can be tested elsewhere: blocks become the identity, 1x1 convolutions with norm a Flip."""
    for layers in (bifpn.lateral, bifpn.lateral2, bifpn.up, bifpn.down):
        for i in range(len(layers)):
            layers[i] = Flip()
    for layers in (bifpn.top_down, bifpn.bottom_up):
        for i in range(len(layers)):
            layers[i] = nn.Identity()
    return bifpn.double().eval()


def test_fusion_by_hand() -> None:
    """Three maps of one channel: 4 x 4, 2 x 2 and 1 x 1, with weights that are not 1."""
    bifpn = bare(BiFPN([1, 1, 1], 2, width=1, depth=1))
    weights = {"top_down": [[1.0, 3.0], [2.0, 2.0]], "bottom_up": [[1.0, 2.0, 1.0], [4.0, 1.0]]}
    with torch.no_grad():
        for name, values in weights.items():
            for fusion, value in zip(getattr(bifpn, f"{name}_fusion"), values, strict=True):
                fusion.weights.copy_(torch.tensor(value))
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(1, 1, s, s, dtype=torch.float64, generator=generator) for s in (4, 2, 1)]
    f1, f2, f3 = (m[0, 0].tolist() for m in maps)
    relu = lambda v: max(v, 0.0)  # noqa: E731
    flip = lambda v: 1 - relu(v)  # noqa: E731
    lat = lambda v: relu(flip(v))  # noqa: E731
    u3 = flip(f3[0][0])
    u2 = [[(2 * lat(f2[y][x]) + 2 * relu(flip(u3))) / (4 + 1e-6) for x in range(2)] for y in range(2)]
    u1 = [[(lat(f1[y][x]) + 3 * relu(flip(u2[y // 2][x // 2]))) / (4 + 1e-6) for x in range(4)] for y in range(4)]
    p1 = u1

    def down(grid: list[list[float]], y: int, x: int) -> float:
        """3 x 3 windows at stride 2, zeros below and to the right, as SAME padding of an even side."""
        window = [(2 * y + i, 2 * x + j) for i in range(3) for j in range(3)]
        side = len(grid)
        return relu(1 - max(relu(grid[a][b]) if a < side and b < side else 0.0 for a, b in window))

    p2 = [[(lat(f2[y][x]) + 2 * relu(u2[y][x]) + down(p1, y, x)) / (4 + 1e-6) for x in range(2)] for y in range(2)]
    p3 = (4 * lat(f3[0][0]) + down(p2, 0, 0)) / (5 + 1e-6)
    refined, out = bifpn(maps)
    for got, expected in zip(refined, (p1, p2, [[p3]]), strict=True):
        assert torch.allclose(got[0, 0], torch.tensor(expected, dtype=torch.float64))
    classifier = bifpn.classifier
    assert torch.allclose(out[0], classifier.weight[:, 0] * relu(p3) + classifier.bias)


def test_fusion_treats_negative_weight_as_zero() -> None:
    fusion = Fusion(2)
    assert fusion.weights.tolist() == [1.0, 1.0]
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([-1.0, 2.0]))
    a, b = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    assert torch.allclose(fusion(a, b), b.relu() * (2 / (2 + 1e-6)))


def test_halve_pads_with_zeros() -> None:
    odd = -torch.ones(1, 1, 5, 5)  # one row of zeros on every side
    assert halve(odd, torch.Size([3, 3]))[0, 0].tolist() == [[0, 0, 0], [0, -1, 0], [0, 0, 0]]
    assert halve(odd, odd.shape[-2:]) is odd


def test_frskd_rejects_stages_that_do_not_halve() -> None:
    blocks = [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 4, stride=4)]
    method = FRSKD(StagedBackbone(blocks, nn.Linear(4, 5), name="coarse"))
    with pytest.raises(UserError, match=r"keep or halve a map's size; one turns \[8, 8\] into \[2, 2\]"):
        method(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
