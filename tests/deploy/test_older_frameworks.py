from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixskd.api import export
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone
from mixskd.deploy.exporting import EXPORTERS
from mixskd.deploy.exports.formats import SUFFIXES
from mixskd.errors import UserError


def saved(name: str, folder: Path) -> Path:
    backbone = build_backbone(name, 3)
    save_model(
        backbone, folder / "model.safetensors", backbone_name=name, classes="abc", image_size=32,
        mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    return folder


def test_mmlabs_keys_are_torchvisions_without_the_classifier(tmp_path: Path) -> None:
    run = saved("resnet18", tmp_path)
    for framework in ("mmdetection", "mmsegmentation"):
        file = export(run, framework)
        assert file.name == f"backbone.{framework}.pth"
        content = torch.load(file, weights_only=True)
        expected = build_backbone("resnet18", 3).export_state_dict()
        assert content["state_dict"].keys() == expected.keys() - {"fc.weight", "fc.bias"}
        assert content["meta"]["mean"] == [127.5, 102.0, 76.5]


def test_detectron2_keys_are_renamed(tmp_path: Path) -> None:
    content = torch.load(export(saved("resnet18", tmp_path), "detectron2"), weights_only=True)
    assert content["matching_heuristics"] is True
    state = content["model"]
    norm = [f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    block = ["conv1.weight", "conv2.weight", *(f"conv{i}.{part}" for i in (1, 2) for part in norm)]
    shortcut = ["shortcut.weight", *(f"shortcut.{part}" for part in norm)]
    expected = {"stem.conv1.weight", *(f"stem.conv1.{part}" for part in norm)}
    for stage in (2, 3, 4, 5):
        expected |= {f"res{stage}.{i}.{key}" for i in (0, 1) for key in block}
        expected |= {f"res{stage}.0.{key}" for key in shortcut if stage > 2}
    assert state.keys() == expected


def test_values_stay_with_their_layers(tmp_path: Path) -> None:
    from mixskd.artifacts.model_file import load_model

    run = saved("resnet18", tmp_path)
    own = load_model(run).export_state_dict()
    state = torch.load(export(run, "detectron2"), weights_only=True)["model"]
    assert torch.equal(state["res3.0.shortcut.weight"], own["layer2.0.downsample.0.weight"])
    assert torch.equal(state["res5.1.conv2.norm.running_var"], own["layer4.1.bn2.running_var"])


def test_network_that_the_framework_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="detectron2 has no wrn_10_1"):
        export(saved("wrn_10_1", tmp_path), "detectron2")


def test_the_command_line_names_every_export() -> None:
    assert list(SUFFIXES) == list(EXPORTERS)
