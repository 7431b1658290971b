"""Four images are learnt by heart: data, model, losses and evaluation agree about boxes and labels."""

from __future__ import annotations

from pathlib import Path

import torch

from mixskd.tasks.detection.coco import load_detection
from mixskd.tasks.detection.evaluation import CocoScores, in_file_pixels
from mixskd.tasks.detection.loading import DetectionImages, Sizes, augmentation, collate
from mixskd.tasks.detection.model import Detector, DetectorConfig
from tests.tasks.detection.support import tiny_backbone, write

STEPS = 80


def test_four_images_are_learnt_by_heart(tmp_path: Path) -> None:
    split = load_detection(write(tmp_path))["train"]
    images = DetectionImages(split, augmentation(Sizes((96,), 96), (0.5,) * 3, (0.25,) * 3, flip=False))
    batch = collate([images[(i, 0)] for i in range(4)])
    net = Detector(tiny_backbone(), 2, DetectorConfig(channels=16, hidden=64, rois=32, proposals=100)).train()
    optimizer = torch.optim.AdamW(net.parameters())
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, 2 * (1 - step / STEPS))
        torch.stack([*net.losses(batch.images, batch.sizes, batch.targets).values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    scores = CocoScores(split)
    with torch.inference_mode():
        found = net.eval()(batch.images, batch.sizes)
    for index, detection, size in zip(batch.indices, found, batch.sizes, strict=True):
        scores.update([index], [in_file_pixels(detection, size, split.images[index])])
    assert scores.compute()["ap"] > 90
