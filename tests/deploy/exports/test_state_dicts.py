"""From an image file to a probability with the library's own model and transform, as ``predict`` gives it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

import mixskd
from mixskd.data.preprocess import Preprocess
from mixskd.deploy.exports.description import resize_rule, timm_data_config, torchvision_transform
from tests.deploy.photo_run import CLASSES, MEAN, STD, cross_entropy, photos, predicted


def transform_of(values: dict) -> ImageClassification:
    return ImageClassification(**{**values, "interpolation": InterpolationMode(values["interpolation"])})


@torch.inference_mode()
def probabilities(model: torch.nn.Module, transform: object, files: list[Path]) -> np.ndarray:
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])  # type: ignore[operator]
    return model(images).softmax(1).numpy()


def test_predict_and_evaluate_agree(resnet: Path) -> None:
    files = photos(resnet.parent / "photos")
    scores = mixskd.evaluate(resnet)
    found = predicted(resnet, files)
    assert scores["images"] == len(files) == 12
    assert scores["loss"] == pytest.approx(cross_entropy(found, files), rel=1e-4)
    assert scores["top1"] == 100 * np.mean([CLASSES[row.argmax()] == f.parent.name for row, f in zip(found, files)])  # noqa: B905
    assert scores["top1"] > 80  # the classifier knows something, or the comparisons here would be of noise


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvisions_model_and_transform_give_the_same(resnet: Path, tmp_path: Path, suffix: str) -> None:
    file = mixskd.export(resnet, "torchvision", tmp_path / f"w{suffix}")
    about = json.loads(Path(f"{file}.json").read_text())
    state = load_file(file) if suffix == ".safetensors" else torch.load(file, weights_only=True)
    theirs = torchvision.models.get_model(about["torchvision"]["model"], **about["torchvision"]["arguments"])
    theirs.load_state_dict(state, strict=True)
    files = photos(resnet.parent / "photos")
    found = probabilities(theirs.eval(), transform_of(about["torchvision"]["transform"]), files)
    assert np.abs(found - predicted(resnet, files)).max() < 1e-5
    assert about["classes"] == list(CLASSES)


@pytest.mark.parametrize("out", ["mine", "mine/weights.pth"])
def test_timm_loads_the_folder_with_its_preprocessing(resnet: Path, tmp_path: Path, out: str) -> None:
    mixskd.export(resnet, "timm", tmp_path / out)
    model = timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    settings = timm.data.resolve_data_config({}, model=model)
    assert settings["input_size"] == (3, 72, 72)
    assert (settings["mean"], settings["std"]) == (list(MEAN), list(STD))
    assert (settings["interpolation"], settings["crop_mode"]) == ("bilinear", "center")
    files = photos(resnet.parent / "photos")
    found = probabilities(model, timm.data.create_transform(**settings), files)
    assert np.abs(found - predicted(resnet, files)).max() < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "timm/test_vit",  # it and torchvision's are made for one image size
        pytest.param("torchvision/vit_b_16", marks=pytest.mark.slow),
        "torchvision/shufflenet_v2_x0_5",
    ],
)
def test_models_of_a_library_are_exported_to_it(tmp_path: Path, name: str) -> None:
    size = 48
    backbone = mixskd.build_backbone(name, 3, size)
    mixskd.save_model(backbone, tmp_path, classes=CLASSES, image_size=size, mean=MEAN, std=STD)
    library = name.split("/")[0]
    file = mixskd.export(tmp_path, library)
    if library == "timm":
        theirs = timm.create_model(f"local-dir:{file.parent}", pretrained=True)
        assert timm.data.resolve_data_config({}, model=theirs)["crop_mode"] == "squash"
    else:
        about = json.loads(Path(f"{file}.json").read_text())["torchvision"]
        assert about["transform"] is None  # torchvision's preset cannot stretch
        theirs = torchvision.models.get_model(about["model"], **about["arguments"])
        theirs.load_state_dict(load_file(file))
    images = torch.randn(2, 3, size, size)
    assert torch.allclose(theirs.eval()(images), mixskd.load(tmp_path)(images), atol=1e-5)


def test_plain_state_dict_loads_with_torch(resnet: Path, tmp_path: Path) -> None:
    file = mixskd.export(resnet, out=tmp_path / "w.pth")
    state = torch.load(file, weights_only=True)
    own = mixskd.load(resnet).export_state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)
    about = json.loads((tmp_path / "w.pth.json").read_text())
    assert (about["classes"], about["image_size"], about["mean"], about["std"]) == (
        list(CLASSES), 72, list(MEAN), list(STD)
    )  # fmt: skip
    assert about["resize"]["short_side"] == 82


def test_plain_safetensors_file_loads_with_mixskd(resnet: Path, tmp_path: Path) -> None:
    file = mixskd.export(resnet, out=tmp_path / "w.safetensors")
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["description"])
    assert about["classes"] == list(CLASSES)
    files = photos(resnet.parent / "photos")[:2]
    assert np.array_equal(predicted(file, files), predicted(resnet, files))


@pytest.mark.parametrize("size", [33, 65, 72, 96, 128, 160, 192, 224, 256, 299, 300, 333, 384, 511])
def test_the_transforms_of_both_libraries_give_our_tensor(size: int) -> None:
    check_transforms(Preprocess(size, MEAN, STD))


def test_timm_pads_as_we_do() -> None:
    for size in (33, 72, 224):
        check_transforms(Preprocess(size, MEAN, STD, "pad"))


def check_transforms(ours: Preprocess) -> None:
    size = ours.image_size
    generator = np.random.default_rng(size)
    image = Image.fromarray(generator.integers(0, 256, (size + 31, size + 90, 3), dtype=np.uint8))
    expected = ours.transform()(image)
    settings = timm_data_config(ours)
    theirs = timm.data.create_transform(**{**settings, "input_size": tuple(settings["input_size"])})
    assert torch.allclose(theirs(image), expected, atol=1e-5)
    values = torchvision_transform(ours)
    if ours.resize != "crop":
        assert values is None
    else:
        assert values is not None
        assert torch.allclose(transform_of(values)(image), expected, atol=1e-5)
        assert math.isclose(resize_rule(ours)["crop_share"], size / ours.resized)
