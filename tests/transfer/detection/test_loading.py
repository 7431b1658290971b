from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.detection.loading import DetectionImages, augmentation, targets_of, train_batch
from mixskd.transfer.detection.sources import load_detection
from tests.transfer.detection.support import write

NONE = ((0.0,) * 3, (1.0,) * 3)


def test_boxes_follow_the_resize_and_the_flip(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    images = DetectionImages(train, augmentation((48, 192), 200, *NONE))
    seen = set()
    for seed in range(16):
        sample = images[(1, seed)]
        side = sample.image.shape[-1]
        x1, y1, x2, y2 = (int(v) for v in sample.boxes[0])
        flipped = sample.boxes[0, 0].item() != 20 * side / 96
        seen.add((side, flipped))
        inner = sample.image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
        torch.testing.assert_close(inner, (torch.tensor([40, 60, 220]) / 255)[:, None, None].expand_as(inner))
        assert sample.image[0, y1 + 2, x1 - 3] > 0.45
        assert sample.image[0, y1 + 2, x2 + 3] > 0.45
    assert seen == {(48, False), (48, True), (192, False), (192, True)}


def test_sample_depends_on_its_seed_only(tmp_path: Path) -> None:
    images = DetectionImages(load_detection(write(tmp_path))["train"], augmentation((48, 64, 80), 200, *NONE))
    torch.manual_seed(1)
    first = images[(0, 5)]
    torch.manual_seed(2)
    again = images[(0, 5)]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)


def test_long_side_is_bounded_and_scoring_uses_the_largest_size(tmp_path: Path) -> None:
    root = write(tmp_path)
    Image.new("RGB", (200, 100)).save(root / "train" / "wide.png")
    transform = augmentation((50, 80), 120, *NONE, train=False)
    assert transform(Image.open(root / "train" / "wide.png")).shape == (3, 60, 120)
    assert transform(Image.open(root / "train" / "10.png")).shape == (3, 80, 80)


def test_crowds_are_not_targets_and_empty_images_load(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    images = DetectionImages(train, augmentation((96,), 96, *NONE, train=False))
    assert images[(2, 0)].labels.tolist() == [1]
    assert images[(3, 0)].boxes.shape == (0, 4)


def test_batch_is_padded_with_zeros_to_multiples_of_32(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    small, large = (DetectionImages(train, augmentation((s,), s, *NONE, train=False)) for s in (40, 70))
    samples = [small[(0, 0)], large[(3, 0)], small[(1, 0)]]
    batch = train_batch(samples)
    assert batch.images.shape == (3, 3, 96, 96)
    assert batch.extra["sizes"].tolist() == [[40, 40], [70, 70], [40, 40]]
    assert batch.images[0, :, 40:].abs().sum() == 0
    assert batch.images[0, :, :, 40:].abs().sum() == 0
    assert batch.labels.shape == (3, 2, 5)
    for sample, target in zip(samples, targets_of(batch.labels), strict=True):
        assert torch.equal(target["boxes"], sample.boxes)
        assert torch.equal(target["labels"], sample.labels)


def test_batch_of_an_image_without_objects(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    images = DetectionImages(train, augmentation((96,), 96, *NONE))
    (target,) = targets_of(train_batch([images[(3, 0)]]).labels)
    assert target["boxes"].shape == (0, 4)


def test_image_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    Image.new("RGB", (50, 96)).save(tmp_path / "train" / "10.png")
    images = DetectionImages(train, augmentation((96,), 96, *NONE))
    with pytest.raises(UserError, match=r"10.png has 50 x 96 pixels, but its annotations say 96 x 96"):
        images[(0, 0)]
