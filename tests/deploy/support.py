"""A small classifier with decided opinions, and photographs for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone

CLASSES = ("ant", "bee", "=cat")


def write_model(path: Path, size: int = 72, classes: Sequence[str] = CLASSES) -> Path:
    """A model file of random weights whose probabilities are spread from 1/3 to 1."""
    torch.manual_seed(0)
    backbone = build_backbone("wrn_10_1", len(classes))
    with torch.no_grad():
        backbone.head.weight.mul_(60)
    save_model(
        backbone, path, backbone_name="wrn_10_1", classes=classes, image_size=size, mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.3),
    )  # fmt: skip
    return path


def photo(path: Path, seed: int) -> Path:
    """A picture of waves, larger than the network's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :120] / 20
    waves = [np.sin(draw.normal() * x + draw.normal() * y + draw.normal()) for _ in range(3)]
    Image.fromarray((127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)).save(path, quality=92)
    return path


def photos(folder: Path, each: int = 7, classes: Sequence[str] = CLASSES) -> Path:
    """A folder of ``each`` JPEG files a class."""
    for c, name in enumerate(classes):
        for i in range(each):
            photo(folder / name / f"{i}.jpg", 100 * c + i)
    return folder
