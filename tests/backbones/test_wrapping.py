"""``mixskd.wrap`` and ``hf/FOLDER``: staged backbones of other people's networks, with the same logits and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

import mixskd
from mixskd.backbones import BACKBONES, StagedBackbone, build_backbone
from mixskd.errors import UserError
from tests.conftest import write_npz

STAGES = ["layer1", "layer2", "layer3", "layer4"]


class Chain(nn.Module):
    """A chain with a norm between its last stage and its pooling, and a nested stage."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU())
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.norm(self.body(x))).flatten(1))


def check(backbone: StagedBackbone, model: nn.Module, size: int) -> None:
    """Same logits and keys as the whole, and MixSKD trains on it."""
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        given = model.eval()(images)
        torch.testing.assert_close(backbone.eval()(images), getattr(given, "logits", given))
    assert backbone.export_state_dict().keys() == model.state_dict().keys()
    mixskd.MixSKD(backbone).train()(images, torch.tensor([0, 1]))["loss"].backward()


def test_wrapped_chain() -> None:
    model = Chain()
    backbone = mixskd.wrap(model, ["body.1", "body.3"], "classifier", image_size=16)
    assert [f.shape[1] for f in backbone.feature_maps(torch.randn(1, 3, 16, 16))] == [4, 6]
    check(backbone, model, 16)


def test_wrapped_resnet_trains_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(classes: int) -> StagedBackbone:
        model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes, width_per_group=64)
        return mixskd.wrap(model, STAGES, "fc", name="small", image_size=32)

    monkeypatch.setitem(BACKBONES, "small", small)
    run = mixskd.train(optim={"lr": 0.001},
        data=str(write_npz(tmp_path / "toy.npz")), backbone="small", method="baseline", out=str(tmp_path / "run"),
        run={"epochs": 1, "batch_size": 4, "progress": False, "precision": "fp32"},
    )  # fmt: skip
    assert mixskd.load(run["out"]).export_state_dict().keys() == ResNet(BasicBlock, [1] * 4).state_dict().keys()


@pytest.mark.parametrize(
    ("stages", "head", "message"),
    [
        (None, None, "needs stages"),
        (["layer9"], "classifier", "no module 'layer9'"),
        (["norm", "body"], "classifier", "cannot cut"),
        (["body.0"], "body.1", "cannot cut|other logits"),
    ],
)
def test_what_cannot_be_wrapped(stages: Any, head: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixskd.wrap(Chain(), stages, head, image_size=16)


CONFIGS = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    "ConvNext": {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "image_size": 64},
    "ViT": {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
        "patch_size": 8,
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CONFIGS)
def test_networks_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**CONFIGS[kind], num_labels=5)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    check(mixskd.wrap(model), model, 32)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    backbone = build_backbone(f"hf/{folder}", 5, 32, weights="pretrained")
    assert backbone.uncut == ""
    assert len(backbone.stages) == 4
    check(backbone, model, 32)
    path = mixskd.save_model(
        backbone, tmp_path / "m.safetensors", classes=list("abcde"), image_size=32, mean=[0.5] * 3, std=[0.5] * 3
    )
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(mixskd.load(path)(images), backbone.eval()(images))


def test_transformers_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a folder with config\.json"):
        build_backbone(f"hf/{tmp_path}", 5)
