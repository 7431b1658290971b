"""Four images are learnt by heart: data, model, losses and evaluation agree about boxes and labels."""

from __future__ import annotations

from pathlib import Path

import torch

from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.evaluation import Detection
from mixskd.transfer.detection.loading import DetectionImages, augmentation, score_batch, train_batch
from mixskd.transfer.detection.model import CascadeRCNN
from mixskd.transfer.detection.sources import load_detection
from tests.transfer.detection.support import tiny_backbone, write

STEPS = 80


def test_cascade_overfits_four_images(tmp_path: Path) -> None:
    split = load_detection(write(tmp_path))["train"]
    images = DetectionImages(split, augmentation((96,), 96, (0.5,) * 3, (0.25,) * 3, flip=False))
    samples = [images[(i, 0)] for i in range(4)]
    batch = train_batch(samples)
    method = CascadeRCNN(tiny_backbone(), 2, DetectorConfig(channels=16, hidden=64, rois=32, proposals=100)).train()
    optimizer = torch.optim.AdamW(method.parameters())
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, 2 * (1 - step / STEPS))
        method(batch.images, batch.labels, **batch.extra)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    task = Detection(split.classes)
    metrics = task.metrics()
    inputs, truths = score_batch(split, samples)
    with torch.inference_mode():
        metrics.update(task.predict(method.eval().backbone, inputs), truths)
    assert task.scores(metrics.compute())["ap"] > 90
