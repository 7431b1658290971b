"""Counts, shapes and keys of every backbone against the paper's tables and torchvision's own nets."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from mixskd import MixSKD, UserError, build_backbone
from mixskd.backbones import BACKBONES
from mixskd.backbones.hcgnet import SMG, Transition


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "in_training"),
    [
        ("cifar_resnet18", 100, 11_220_132, 42_380_084),
        ("cifar_preact_resnet18", 100, 11_217_444, None),
        ("wrn_16_2", 100, 703_284, 1_973_536),
        ("densenet_40_12", 100, 1_060_132, 3_166_880),
        ("hcgnet_a1", 100, 1_102_651, 3_513_619),
        ("resnet18", 200, 11_279_112, 42_644_264),
        ("resnet18", 67, 11_210_883, None),
        ("resnet50", 1000, 25_557_032, 110_840_776),
    ],
)
def test_parameter_counts(name: str, classes: int, parameters: int, in_training: int | None) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, classes)
        assert count(backbone) == parameters
        if in_training:
            assert count(MixSKD(backbone, discriminator="off")) == in_training


@pytest.mark.parametrize(
    ("name", "branches"),
    [
        ("cifar_resnet18", [11_019_008, 10_493_440, 8_393_728]),
        ("wrn_16_2", [656_960, 525_440]),
        ("densenet_40_12", [880_640, 489_296]),
        ("hcgnet_a1", [1_014_063, 758_217]),
        ("resnet50", [23_282_688, 22_063_104, 14_964_736]),
    ],
)
def test_branches_match_paper_tables(name: str, branches: list[int]) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, 100)
        assert [count(backbone.fresh_tail(k + 1)) for k in range(len(branches))] == branches


@pytest.mark.parametrize("name", ["cifar_resnet18", "wrn_10_1", "densenet_40_12", "hcgnet_a1", "resnet18"])
@pytest.mark.parametrize("size", [32, 40])
def test_branches_end_in_last_map_shape(name: str, size: int) -> None:
    backbone = build_backbone(name, 10).eval()
    maps = backbone.feature_maps(torch.randn(2, 3, size, size))
    for k in range(1, len(maps)):
        assert backbone.fresh_tail(k).eval()(maps[k - 1]).shape == maps[-1].shape
    assert backbone(torch.randn(2, 3, size, size)).shape == (2, 10)


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"cifar_resnet50", "resnet34", "resnet50", "resnet101"}))
def test_fresh_tail_shares_no_parameters(name: str) -> None:
    backbone = build_backbone(name, 10)
    tail = backbone.fresh_tail(len(backbone.stages) - 1)
    own, copied = dict(backbone.stages[-1].named_parameters()), dict(tail[0].named_parameters())
    assert own.keys() == copied.keys()
    for key, value in own.items():
        assert copied[key].shape == value.shape
        assert copied[key].data_ptr() != value.data_ptr()
        if value.ndim == 4:
            assert not torch.equal(copied[key], value)


def test_fresh_tail_is_initialised_again() -> None:
    backbone = build_backbone("wrn_10_1", 10)
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 7.0)
    tail = backbone.fresh_tail(1)
    assert not any((p == 7).any() for p in tail.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_load_strictly_into_torchvision(name: str) -> None:
    backbone = build_backbone(name, 12).eval()
    theirs = torchvision.models.get_model(name, num_classes=12).eval()
    theirs.load_state_dict(backbone.export_state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(theirs(images), backbone(images), atol=1e-5)


@pytest.mark.parametrize("name", ["wrn_10_1", "densenet_40_12", "hcgnet_a1", "cifar_preact_resnet18"])
def test_exported_weights_load_again(name: str) -> None:
    a, b = build_backbone(name, 5), build_backbone(name, 5)
    b.load_export_state_dict(a.export_state_dict())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_hcgnet_module_sizes() -> None:
    assert count(SMG(24, 12)) == 3_705
    assert count(Transition(120)) == 70_638


def test_smg_equals_its_definition() -> None:
    smg = SMG(4, 4).double().eval()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    v = smg.conv(smg.squeeze(x))

    def attend(attention: nn.Module, m: torch.Tensor) -> torch.Tensor:
        scores = [
            attention.conv.bias + sum(attention.conv.weight[0, c, 0, 0] * m[0, c, i, j] for c in range(4))
            for i in range(3) for j in range(3)
        ]  # fmt: skip
        weights = torch.softmax(torch.cat(scores), 0)
        return sum(weights[3 * i + j] * m[0, :, i, j] for i in range(3) for j in range(3))

    forget, update = smg.forget, smg.update
    r = torch.sigmoid(forget.expand(torch.tanh(forget.bn(forget.reduce(attend(forget.attention, v)[None])))))[0]
    near, far = attend(update.near_attention, update.near(v)), attend(update.far_attention, update.far(v))
    hidden = torch.tanh(update.bn(update.reduce(torch.cat([near, far])[None])))
    a, b = update.near_score(hidden)[0].exp(), update.far_score(hidden)[0].exp()
    g = a / (a + b) * near + b / (a + b) * far
    expected = torch.cat([x[0], v[0] * r[:, None, None] + g[:, None, None]])
    assert torch.allclose(smg(x)[0], expected)


def test_unknown_backbone_names_are_rejected() -> None:
    with pytest.raises(UserError, match="did you mean 'cifar_resnet18'"):
        build_backbone("cifar_resnet8", 10)
    with pytest.raises(UserError, match="6 n \\+ 4"):
        build_backbone("wrn_15_2", 10)
