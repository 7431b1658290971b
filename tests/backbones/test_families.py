"""Each family of timm and torchvision: the library's own logits, and one step of MixSKD with finite gradients."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from mixskd import build_backbone
from mixskd.backbones.tokens import spatial
from mixskd.methods.mixskd import MixSKD

# Name, size of the images. The usual ones run always; the whole list takes minutes on one core.
USUAL = [
    ("timm/test_resnet", 64),
    ("timm/test_convnext", 64),
    ("timm/test_mambaout", 64),
    ("timm/test_maxvit", 64),
    ("timm/test_vit", 64),
    ("timm/mobilenetv3_small_050", 64),
    ("timm/efficientvit_b0", 64),
    ("torchvision/mobilenet_v3_small", 64),
]
OTHERS = [
    ("timm/regnetx_002", 64),
    ("timm/test_efficientnet", 64),
    ("timm/tf_efficientnetv2_b0", 64),
    ("timm/mobilenetv2_035", 64),
    ("timm/mobilenetv4_conv_small_035", 64),
    ("timm/densenet121", 64),
    ("timm/test_convnext2", 64),
    ("timm/hgnetv2_b0", 64),
    ("timm/repvit_m0_9", 64),
    ("timm/fastvit_t8", 64),
    ("timm/efficientvit_m0", 224),
    ("timm/poolformer_s12", 64),
    ("timm/swin_tiny_patch4_window7_224", 64),
    ("timm/deit_tiny_patch16_224", 64),
    ("timm/deit_tiny_distilled_patch16_224", 64),
    ("timm/pvt_v2_b0", 64),
    ("timm/edgenext_xx_small", 64),
    ("timm/resnetv2_50", 64),
    ("timm/test_coatnet", 160),
    ("torchvision/mobilenet_v2", 64),
    ("torchvision/efficientnet_b0", 64),
    ("torchvision/convnext_tiny", 64),
    ("torchvision/swin_t", 64),
    ("torchvision/vit_b_16", 64),
    ("torchvision/regnet_x_400mf", 64),
    ("torchvision/shufflenet_v2_x0_5", 64),
    ("torchvision/densenet121", 64),
    ("torchvision/resnext50_32x4d", 64),
]


def library_model(name: str, classes: int, size: int) -> nn.Module:
    """The library's own model, made without our code."""
    library, _, short = name.partition("/")
    if library == "torchvision":
        options = {"image_size": size} if short.startswith("vit") else {}
        return torchvision.models.get_model(short, num_classes=classes, **options)
    config = timm.get_pretrained_cfg(short)
    fixed = config is not None and config.fixed_input_size and size != config.input_size[-1]
    return timm.create_model(short, num_classes=classes, **({"img_size": size} if fixed else {}))


def check(name: str, size: int) -> None:
    backbone = build_backbone(name, 5, size)
    assert not backbone.uncut
    with torch.no_grad():  # no layer may be invisible behind a small or zero initial weight
        for p in backbone.parameters():
            p.add_(torch.randn_like(p) * (0.02 if p.ndim > 1 else 0.1))
    theirs = library_model(name, 5, size)
    theirs.load_state_dict(backbone.export_state_dict(), strict=True)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = theirs.eval()(images)
        assert expected.std() > 0
        assert torch.equal(backbone.eval()(images), expected)
        maps = [spatial(f) for f in backbone.feature_maps(images)]
        assert all(f.ndim == 4 for f in maps)
    assert len(maps) >= 3
    assert [f.shape[1] for f in maps] == backbone.stage_channels()

    torch.manual_seed(0)
    method = MixSKD(build_backbone(name, 5, size)).train()
    out = method(images, torch.tensor([0, 1]))
    assert out["output"].shape == (2, 5)
    assert all(term.isfinite().all() for term in out.values())
    out["loss"].backward()
    wrong = [key for key, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert wrong == []


@pytest.mark.parametrize(("name", "size"), USUAL)
def test_usual_families(name: str, size: int) -> None:
    check(name, size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), OTHERS)
def test_other_families(name: str, size: int) -> None:
    check(name, size)
