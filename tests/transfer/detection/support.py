"""A tiny COCO data set with shapes that can be learnt, and a small detector."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock

from mixskd.backbones import StagedBackbone

COLOURS = {3: (220, 40, 40), 7: (40, 60, 220)}


def tiny_backbone(widths: tuple[int, ...] = (8, 16, 24, 32), classes: int = 2) -> StagedBackbone:
    """Four stages of strides 4, 8, 16 and 32, each a basic block of few channels, behind a stem of stride 4."""
    stem = [nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages: list[OrderedDict[str, nn.Module]] = []
    before = widths[0]
    for k, width in enumerate(widths, start=1):
        down = nn.Sequential(nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width)) if k > 1 else None
        stages.append(OrderedDict({f"layer{k}": nn.Sequential(BasicBlock(before, width, 2 if k > 1 else 1, down))}))
        before = width
    stages[0] = OrderedDict([("stem", nn.Sequential(*stem)), *stages[0].items()])
    return StagedBackbone(map(nn.Sequential, stages), nn.Linear(before, classes), name="tiny")


def content() -> dict[str, Any]:
    """Two categories with gaps in their ids; image 40 is empty, and image 30 has a crowd."""
    boxes = [
        (10, 3, [8, 10, 30, 28]), (10, 7, [50, 44, 36, 30]), (20, 7, [20, 20, 44, 40]), (30, 3, [40, 12, 32, 48]),
    ]  # fmt: skip
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (image, category, box) in enumerate(boxes, start=1)
    ]
    annotations.append(
        {"id": 9, "image_id": 30, "category_id": 7, "bbox": [0, 60, 30, 30], "area": 900, "iscrowd": 1, }
    )  # fmt: skip
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 96, "height": 96} for i in (10, 20, 30, 40)],
        "categories": [{"id": 7, "name": "blue"}, {"id": 3, "name": "red"}],
        "annotations": annotations,
    }


def write(root: Path, values: dict[str, Any] | None = None) -> Path:
    """The data set under ``root`` as ``train`` and ``val``, with its images."""
    values = values or content()
    for split in ("train", "val"):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps(values))
        for image in content()["images"]:
            pixels = np.full((96, 96, 3), 128, dtype=np.uint8)
            for item in content()["annotations"]:
                if item["image_id"] == image["id"]:
                    x, y, w, h = item["bbox"]
                    pixels[y : y + h, x : x + w] = COLOURS[item["category_id"]]
            Image.fromarray(pixels).save(root / split / image["file_name"])
    return root
