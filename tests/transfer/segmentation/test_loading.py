from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.loading import (
    RandomScale,
    SegmentationImages,
    augmentation,
    normalisation,
    train_batch,
)
from mixskd.transfer.segmentation.sources import load_segmentation
from tests.transfer.segmentation.support import write

SCALES = DeepLabConfig().scales
NONE = ((0.0,) * 3, (1.0,) * 3)


def test_default_scales_are_the_papers_sixteen() -> None:
    assert len(SCALES) == 16
    assert (SCALES[0], SCALES[1], SCALES[-1]) == (0.5, 0.6, 2.0)


def test_image_and_mask_are_scaled_cropped_and_flipped_alike(tmp_path: Path) -> None:
    split = load_segmentation(write(tmp_path, (64, 48)))["train"]
    images = SegmentationImages(split, augmentation(40, *NONE, SCALES))
    colours = torch.tensor([[90, 140, 230], [60, 150, 60], [220, 40, 40]]) / 255
    for seed in range(12):
        sample = images[(1, seed)]
        assert sample.image.shape == (3, 40, 40)
        assert (sample.mask.shape, sample.mask.dtype) == ((40, 40), torch.int64)
        counted = sample.mask < 255
        nearest = (sample.image[None] - colours[:, :, None, None]).abs().sum(1).argmin(0)
        assert (nearest == sample.mask)[counted].float().mean() > 0.9
        assert set(sample.mask.unique().tolist()) <= {0, 1, 2, 255}


def test_small_images_are_padded_with_the_mean_and_with_ignored_pixels(tmp_path: Path) -> None:
    split = load_segmentation(write(tmp_path))["train"]
    images = SegmentationImages(split, augmentation(128, (0.3,) * 3, (0.2,) * 3, (1.0,)))
    sample = images[(0, 0)]
    assert (sample.mask == 255).sum() == 128 * 128 - 40 * 32 + 40  # and the row of the mask that is ignored
    assert (sample.image.abs().sum(0) == 0).sum() == 128 * 128 - 40 * 32


def test_sample_depends_on_its_seed_only(tmp_path: Path) -> None:
    images = SegmentationImages(load_segmentation(write(tmp_path))["train"], augmentation(16, *NONE, SCALES))
    torch.manual_seed(1)
    first = images[(0, 5)]
    torch.manual_seed(2)
    again = images[(0, 5)]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, images[(0, 6)].image)
    batch = train_batch([first, again])
    assert (batch.images.shape, batch.labels.shape, batch.extra) == ((2, 3, 16, 16), (2, 16, 16), {})


def test_scales_are_drawn_evenly() -> None:
    torch.manual_seed(0)
    scale = RandomScale((0.5, 1.0, 2.0))
    sizes = [scale(tv_tensors.Mask(torch.zeros(1, 8, 8))).shape[-1] for _ in range(300)]
    assert {size: sizes.count(size) > 70 for size in (4, 8, 16)} == {4: True, 8: True, 16: True}


def test_bgr_colours_match_the_released_code() -> None:
    pixel = np.array([[[10, 20, 30]]], dtype=np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixel).permute(2, 0, 1))
    given = normalisation((0.5,) * 3, (0.25,) * 3, colours="bgr")(image)
    expected = torch.tensor([30 - 104.00698793, 20 - 116.66876762, 10 - 122.67891434])
    torch.testing.assert_close(given.flatten().as_subclass(torch.Tensor), expected, rtol=1e-5, atol=1e-4)
    usual = normalisation((0.5,) * 3, (0.25,) * 3)(image)
    expected = (torch.tensor([10.0, 20, 30]) / 255 - 0.5) / 0.25
    torch.testing.assert_close(usual.flatten().as_subclass(torch.Tensor), expected)


def test_grey_images_load_as_rgb(tmp_path: Path) -> None:
    split = load_segmentation(write(tmp_path))["train"]
    Image.new("L", (40, 32)).save(split.images[0])
    assert SegmentationImages(split, normalisation(*NONE))[(0, 0)].image.shape == (3, 32, 40)
