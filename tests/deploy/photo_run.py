"""A run on image files whose classifier knows its classes, without any training: for tests of what leaves a run."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import mixskd
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import BACKBONES, StagedBackbone, build_backbone
from mixskd.config import to_yaml
from mixskd.config.build import build_experiment
from mixskd.data.images import decode_image
from mixskd.data.preprocess import Preprocess

CLASSES = ("ant", "bee", "cat")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZE = 72  # above 64 px a photograph's short side is resized and its centre cropped, if no other rule is given


def tiny(num_classes: int) -> StagedBackbone:
    """Three stages of convolution, batch norm and ReLU."""
    stages = []
    for k, (a, b) in enumerate(pairwise([3, 8, 12, 16])):
        layers = {
            f"conv{k}": nn.Conv2d(a, b, 3, 2, 1, bias=False),
            f"norm{k}": nn.BatchNorm2d(b),
            f"relu{k}": nn.ReLU(),
        }
        stages.append(nn.Sequential(OrderedDict(layers)))
    return StagedBackbone(stages, nn.Linear(16, num_classes), name="tiny")


@contextmanager
def tiny_is_known() -> Iterator[None]:
    """``tiny`` among the backbones."""
    BACKBONES["tiny"] = tiny
    yield
    del BACKBONES["tiny"]


def write_photos(folder: Path) -> None:
    """Four training and four test photographs of each class, oblong, each class with its own colour and stripes."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for split in ("train", "test"):
            for i in range(4):
                width, height = (100, 84) if i % 2 else (86, 118)
                stripes = 40 * np.sin(np.arange(width) / (label + 1.5))[None, :, None]
                colour = 90 + 70 * np.eye(3)[label]
                noise = generator.normal(0, 18, (height, width, 3))
                pixels = np.clip(colour + stripes + noise, 0, 255).astype(np.uint8)
                file = folder / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)


def photos(folder: Path, split: str = "test") -> list[Path]:
    """The files of a split, by class."""
    return sorted((folder / split).rglob("*.png"))


@torch.no_grad()
def make_run(folder: Path, name: str, size: int = SIZE, resize: str = "") -> Path:
    """A finished run ``folder/run`` of the backbone ``name`` on ``folder/photos``, fitted by least squares."""
    data, run = folder / "photos", folder / "run"
    run.mkdir()
    write_photos(data)
    torch.manual_seed(0)
    backbone = build_backbone(name, len(CLASSES), size).eval()
    files = photos(data, "train")
    transform = Preprocess(size, MEAN, STD, resize).transform()
    images = torch.stack([transform(decode_image(file)) for file in files])
    features = backbone.pooled(backbone.feature_maps(images)[-1])
    centre = features.mean(0)
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    wanted = 3 * nn.functional.one_hot(labels, len(CLASSES)).float()
    weight = torch.linalg.lstsq(features - centre, wanted, driver="gelsd").solution.T
    head: Any = backbone.head
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ centre)
    save_model(
        backbone, run / "model.safetensors", backbone_name=name, classes=CLASSES, image_size=size, mean=MEAN, std=STD,
        resize=resize,
    )  # fmt: skip
    values = {"data": {"source": str(data), "workers": 0}, "backbone": name, "method": "baseline", "out": str(run)}
    (run / "config.yaml").write_text(to_yaml(build_experiment(values)))
    return run


def predicted(run: Path, files: list[Path]) -> np.ndarray:
    """What ``mixskd.predict`` says, ``N x 3`` in the order of the classes."""
    table = [{c["name"]: c["probability"] for c in one["classes"]} for one in mixskd.predict(run, files, top=3)]
    return np.array([[row[name] for name in CLASSES] for row in table])


def as_described(file: Path, about: dict[str, Any], kind: str) -> np.ndarray:
    """An image file as the description of an export asks for it, ``1 x 3 x H x W``, by Pillow and NumPy alone."""
    image = Image.open(file).convert("RGB")
    rule, size = about["resize"], about["image_size"]
    if rule["rule"] == "squash":
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    elif rule["rule"] == "pad":
        sides = [max(1, round(side * size / max(image.size))) for side in image.size]
        whole = Image.new("RGB", (size, size), tuple(rule["fill"]))
        whole.paste(image.resize(sides, Image.Resampling.BILINEAR), [(size - sides[0]) // 2, (size - sides[1]) // 2])
        image = whole
    else:
        sides = [int(rule["short_side"] * side / min(image.size)) for side in image.size]
        image = image.resize(sides, Image.Resampling.BILINEAR)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image).transpose(2, 0, 1)[None]
    if kind == "uint8":
        return np.ascontiguousarray(pixels)
    x = pixels.astype(np.float32) / 255
    if kind == "float":
        mean, std = (np.array(about[key], dtype=np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
        x = (x - mean) / std
    return np.ascontiguousarray(x)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """By rows, in float64."""
    x = np.exp((logits.astype(np.float64) - logits.max(1, keepdims=True)) / temperature)
    return x / x.sum(1, keepdims=True)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The softmax of the same logits at another temperature."""
    return softmax(np.log(probabilities), temperature)


def cross_entropy(probabilities: np.ndarray, files: list[Path]) -> float:
    """The mean over files in folders of their class."""
    labels = [CLASSES.index(file.parent.name) for file in files]
    return -float(np.mean([math.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]))
