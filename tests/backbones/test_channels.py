"""Backbones for grey images and for many channels, from scratch and from weights for RGB."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm.models
import torch

from mixskd.backbones import build_backbone, start_from
from mixskd.backbones.pretrained import adapted
from mixskd.errors import UserError


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 13])
def test_weights_are_adapted_as_by_timm(channels: int) -> None:
    weight = torch.randn(5, 3, 7, 7)
    assert torch.allclose(adapted(weight, channels), timm.models.adapt_input_conv(channels, weight))


NAMES = ("wrn_10_1", "densenet_40_12", "timm/resnet18", "timm/vit_tiny_patch16_224", "torchvision/swin_t")


@pytest.mark.parametrize("name", NAMES)
def test_any_backbone_takes_other_channels(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, 3, channels=6).eval()
        size = backbone.default_size if backbone.fixed else max(backbone.min_size, 64)
        assert backbone.in_channels == 6
        assert backbone(torch.empty(2, 6, size, size)).shape == (2, 3)
        assert [tuple(x.shape) for x in backbone.fresh_tail(1).parameters()][:1]


def test_mean_of_networks_takes_other_channels() -> None:
    backbone = build_backbone("ensemble/wrn_10_1+resnet18", 3, channels=2).eval()
    assert backbone.in_channels == 2
    assert backbone(torch.randn(2, 2, 32, 32)).shape == (2, 3)


def test_weights_for_rgb_start_a_network_for_others(tmp_path: Path) -> None:
    rgb = build_backbone("resnet18", 3)
    torch.save(rgb.export_state_dict(), tmp_path / "w.pth")
    grey = build_backbone("resnet18", 3, channels=1)
    assert start_from(grey, str(tmp_path / "w.pth")) == [
        f"the first layer of {tmp_path / 'w.pth'} is for 3 channels; it is adapted to 1"
    ]
    x = torch.randn(2, 1, 64, 64)
    assert torch.allclose(grey.eval()(x), rgb.eval()(x.expand(-1, 3, -1, -1)), atol=1e-4), "as of equal channels"
    torch.save(build_backbone("resnet18", 3, channels=2).export_state_dict(), tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"conv1\.weight is"):
        start_from(grey, str(tmp_path / "two.pth"))
