"""Models of timm as stages and a head."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import mixskd
from mixskd import MixSKD, UserError, build_backbone
from mixskd.artifacts.model_file import save_model


@pytest.mark.parametrize("name", ["regnetx_002", "mobilenetv2_050", "test_resnet"])
def test_cut_timm_model_keeps_logits_and_keys(name: str) -> None:
    backbone = build_backbone(f"timm/{name}", 5).eval()
    theirs = timm.create_model(name, num_classes=5).eval()
    theirs.load_state_dict(backbone.export_state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(backbone(images), theirs(images), atol=1e-5)
    maps = backbone.feature_maps(images)
    sizes = [f.shape[-1] for f in maps]
    assert len(maps) == 4
    assert sizes == sorted(sizes, reverse=True)


def test_branches_are_fresh_copies_of_later_stages() -> None:
    method = MixSKD(build_backbone("timm/test_resnet", 5))
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    maps = method.branches(method.backbone.feature_maps(images))
    assert {tuple(f.shape) for f in maps} == {tuple(maps[-1].shape)}
    for k, tail in enumerate(method.branches.alignments, start=1):
        theirs = [p for stage in method.backbone.stages[k:] for p in stage.parameters()]
        ours = list(tail.parameters())
        assert [p.shape for p in ours] == [p.shape for p in theirs]
        assert any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    method(images, labels)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_unknown_timm_model_is_rejected() -> None:
    with pytest.raises(UserError, match="timm cannot make"):
        build_backbone("timm/no_such_model", 5)


def test_timm_backbone_is_saved_loaded_and_exported(tmp_path: Path) -> None:
    backbone = build_backbone("timm/test_resnet", 2).eval()
    about = {"backbone_name": "timm/test_resnet", "classes": ["a", "b"], "image_size": 64}
    save_model(backbone, tmp_path / "model.safetensors", **about, mean=(0.5,) * 3, std=(0.5,) * 3)
    model = mixskd.load(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(images), backbone(images))
    timm.create_model("test_resnet", num_classes=2).load_state_dict(load_file(mixskd.export(tmp_path, "timm")))
    with pytest.raises(UserError, match="torchvision has no timm/test_resnet"):
        mixskd.export(tmp_path, "torchvision")
