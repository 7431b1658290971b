"""The model file and what is exported from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

import mixskd
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone
from mixskd.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(
        build_backbone("resnet18", 3), tmp_path / "model.safetensors", backbone_name="resnet18",
        classes=["ant", "bee", "cat"], image_size=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
    )  # fmt: skip
    return tmp_path


def test_load_gives_a_plain_module(run: Path) -> None:
    model = mixskd.load(run)
    assert model.classes == ("ant", "bee", "cat")
    assert not model.training
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_export_loads_strictly_in_its_library(run: Path, library: str) -> None:
    state = load_file(mixskd.export(run, library))
    create = torchvision.models.get_model if library == "torchvision" else timm.create_model
    theirs = create("resnet18", num_classes=3).eval()
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(theirs(images), mixskd.load(run)(images), atol=1e-5)


def test_predict(run: Path, tmp_path: Path) -> None:
    Image.new("L", (80, 70), 200).save(tmp_path / "grey.png")
    (prediction,) = mixskd.predict(run, [tmp_path / "grey.png"], top=2)
    probabilities = [c["probability"] for c in prediction["classes"]]
    assert len(probabilities) == 2
    assert probabilities == sorted(probabilities, reverse=True)
    with pytest.raises(UserError, match="no image at"):
        mixskd.predict(run, [tmp_path / "none.png"])


def test_bad_model_files_are_refused(run: Path, tmp_path: Path) -> None:
    path = run / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="corrupt, truncated or not a safetensors file"):
        mixskd.load(run)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not written by mixskd"):
        mixskd.load(run)
    with pytest.raises(UserError, match="no model at"):
        mixskd.load(tmp_path / "nowhere")


def test_network_without_counterpart_is_refused(tmp_path: Path) -> None:
    save_model(
        build_backbone("wrn_10_1", 2), tmp_path / "m.safetensors", backbone_name="wrn_10_1", classes=["a", "b"],
        image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    with pytest.raises(UserError, match="torchvision has no wrn_10_1"):
        mixskd.export(tmp_path / "m.safetensors", "torchvision")
