"""Models that cannot be cut, image sizes, fresh parts, and the libraries' own normalisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import mixskd
from mixskd import UserError, build_backbone
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import start_from
from mixskd.backbones.pretrained import normalisation_of
from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import TokenMap, spatial, to_map, to_tokens
from mixskd.methods import METHODS
from tests.methods.support import extras, make

WHOLE = "timm/test_vit_relpos"  # its blocks share a bias of positions, so they are no chain
BRANCHED = (
    "mixskd",
    "deep_supervision",
    "dks",
    "byot",
    "sad",
    "frskd",
    "frskd_mixup",
    "manifold_mixup",
    "uskd",
    "zipf_ls",
)


def step(name: str, backbone: StagedBackbone, size: int = 64) -> None:
    method = make(name, backbone)
    images = torch.randn(4, 3, size, size)
    out = method(images, torch.arange(4) % 5, **extras(method.needs, images))
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert backbone.head_keys()


@pytest.mark.parametrize("name", METHODS)
def test_model_without_stages_trains_with_plain_methods(name: str) -> None:
    backbone = build_backbone(WHOLE, 5, 64)
    assert len(backbone.stages) == 1
    if name in BRANCHED:
        with pytest.raises(UserError, match=r"needs the stages .* its layers are not a chain .* as baseline"):
            METHODS[name](backbone)
    else:
        step(name, backbone)


def test_model_without_features_trains_with_logits() -> None:
    backbone = build_backbone("torchvision/squeezenet1_1", 5)
    step("baseline", backbone)
    with pytest.raises(UserError, match="ddgsd needs the features before the classifier"):
        METHODS["ddgsd"](backbone)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"mixskd"}))
def test_every_method_on_tokens(name: str) -> None:
    step(name, build_backbone("timm/test_vit", 5, 64))


@pytest.mark.parametrize("name", ["frskd", "sad", "virtual_softmax"])
def test_maps_with_channels_last_and_a_deep_head(name: str) -> None:
    step(name, build_backbone("timm/test_mambaout", 5))


def test_virtual_logit_of_deep_head() -> None:
    """||w_y|| ||e|| with e from timm's own ``pre_logits``, and from the layers before torchvision's last."""
    for name, before in (
        ("timm/test_convnext", lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True)),
        ("torchvision/mobilenet_v3_small", lambda m, x: m.classifier[:-1](m.features(x).mean((2, 3)))),
    ):
        method = METHODS["virtual_softmax"](build_backbone(name, 5)).eval()
        theirs = method.backbone.library.create(5).eval()
        theirs.load_state_dict(method.backbone.export_state_dict())
        images, labels = torch.randn(2, 3, 64, 64), torch.tensor([3, 1])
        e = before(theirs, images)
        weight = [m for m in theirs.modules() if isinstance(m, nn.Linear)][-1].weight
        z = torch.cat([e @ weight.T, (weight[labels].norm(dim=1) * e.norm(dim=1))[:, None]], dim=1)
        loss = method(images, labels)["loss"]
        assert loss.item() == pytest.approx((z.logsumexp(1) - z[[0, 1], labels]).mean().item(), rel=1e-5)


def test_tokens_convert_to_maps_and_back() -> None:
    tokens = torch.arange(2 * 7 * 3.0).view(2, 7, 3)
    feature_map = to_map(tokens, (2, 3), prefix=1)
    assert isinstance(feature_map, TokenMap)
    assert feature_map.grid[1, :, 1, 2].tolist() == tokens[1, 6].tolist()
    assert feature_map.prefix[1, :, 0].tolist() == tokens[1, 0].tolist()
    assert torch.equal(to_tokens(feature_map), tokens)
    assert torch.equal(to_tokens(to_map(tokens[:, 1:], (2, 3), prefix=0)), tokens[:, 1:])


def test_fresh_parts_use_library_initialisation() -> None:
    backbone = build_backbone("timm/test_vit", 5, 64)
    for p in backbone.parameters():
        nn.init.constant_(p, 7.0)
    tails, heads = backbone.fresh_branches()
    theirs = timm.create_model("test_vit", num_classes=5, img_size=64)
    for tail in (*tails, backbone.fresh_tail(2)):
        assert not any((p == 7).any() for p in tail.parameters())
    mlp = tails[-1][-1].blocks[0].mlp.fc1.weight  # PyTorch's own default would be larger, and uniform
    assert mlp.std().item() == pytest.approx(theirs.blocks[-1].mlp.fc1.weight.std().item(), rel=0.2)
    assert heads[0].weight.std().item() == pytest.approx(theirs.head.weight.std().item(), rel=0.5)


def test_fixed_size_model_is_built_for_given_size() -> None:
    assert build_backbone("timm/test_vit", 5).min_size == 160
    backbone = build_backbone("timm/test_vit", 5, 64)
    assert (backbone.min_size, backbone.default_size) == (64, 64)
    assert spatial(backbone.feature_maps(torch.randn(1, 3, 64, 64))[0]).shape[-2:] == (4, 4)
    assert build_backbone("timm/test_resnet", 5, 64).min_size < 64
    with pytest.raises(UserError, match="torchvision cannot make vit_b_16 for images of 30 px"):
        build_backbone("torchvision/vit_b_16", 5, 30)
    with pytest.raises(UserError, match="unknown classifier of torchvision 'resnet81'"):
        build_backbone("torchvision/resnet81", 5)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_convnext", WHOLE, "torchvision/squeezenet1_1"])
def test_model_file_and_weights_load_again(name: str, tmp_path: Path) -> None:
    backbone = build_backbone(name, 2, 64).eval()
    about = {"backbone_name": name, "classes": ["a", "b"], "image_size": 64}
    save_model(backbone, tmp_path / "model.safetensors", **about, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(images)
        assert torch.equal(mixskd.load(tmp_path)(images), expected)
        again = build_backbone(name, 2, 64)
        assert start_from(again, str(tmp_path)) == []
        assert torch.equal(again.eval()(images), expected)
    other = build_backbone(name, 3, 64)
    (note,) = start_from(other, str(tmp_path))
    assert note.startswith("the classifier is new")
    if not other.uncut:
        theirs = [dict(stage.named_parameters()) for stage in backbone.stages]
        ours = [dict(stage.named_parameters()) for stage in other.stages]
        assert all(torch.equal(p, b[key]) for a, b in zip(theirs, ours, strict=True) for key, p in a.items())


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("timm/vit_base_patch16_224", (0.5, 0.5, 0.5)),
        ("timm/resnet18", (0.485, 0.456, 0.406)),
        ("torchvision/convnext_tiny", (0.485, 0.456, 0.406)),
        ("resnet50", (0.485, 0.456, 0.406)),
    ],
)
def test_normalisation_of_library_weights(name: str, mean: tuple[float, ...]) -> None:
    assert normalisation_of(name)[0] == mean
    with pytest.raises(UserError, match="no library publishes weights of wrn_16_2"):
        normalisation_of("wrn_16_2")
