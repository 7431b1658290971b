"""From an image of any shape to the network's size: what is cut off, what is kept, and sizes that grow in a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.config import DataConfig
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.preprocess import Preprocess
from mixskd.data.worker_loader import WorkerLoader
from mixskd.errors import UserError
from tests.conftest import write_npz

CPU = torch.device("cpu")
SHAPES = [(80, 80), (31, 97), (97, 31), (200, 3), (3, 200), (640, 480), (7, 5)]


def gradient(width: int, height: int) -> Image.Image:
    """Red is the place from left to right, green from top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
def test_pad_shows_the_whole_image_on_the_mean_colour(shape: tuple[int, int]) -> None:
    p = Preprocess(64, mean=(0.1, 0.5, 0.9), resize="pad")
    image = gradient(*shape)
    width, height = (max(1, round(side * 64 / max(shape))) for side in shape)
    expected = Image.new("RGB", (64, 64), (26, 128, 230))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    expected.paste(small, ((64 - width) // 2, (64 - height) // 2))
    assert np.array_equal(p.crop()(image), expected)


@pytest.mark.parametrize("resize", ["pad", "squash"])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_part_in_training_is_the_image_of_the_evaluation(resize: str, shape: tuple[int, int]) -> None:
    p = Preprocess(32, resize=resize)
    image = gradient(*shape)
    part = np.asarray(p.part(32, (1, 1), (1, 1))(image)).astype(int)
    whole = np.asarray(p.crop()(image)).astype(int)
    assert part.shape == (32, 32, 3)
    assert np.abs(part - whole)[2:-2, 2:-2].mean() < 12, "resized in one step or in two"


def test_part_of_a_squashed_image_has_its_proportions() -> None:
    p = Preprocess(32, resize="squash")
    image, shares = gradient(400, 100), []
    for _ in range(40):
        part = np.asarray(p.part(32, (0.2, 0.2), (1, 1))(image)).astype(float)
        spread = np.ptp(part[..., :2], axis=(0, 1)) / 255
        shares.append(spread)
    assert np.allclose(shares, 0.2**0.5, atol=0.06), "as much of the width as of the height"


def test_crop_keeps_both_ends_of_a_padded_crop_in_reach() -> None:
    p = Preprocess(32, resize="crop")
    assert p.whole(32)(gradient(90, 30)).size == (96, 32)
    assert p.crop()(gradient(90, 30)).size == (32, 32)


def test_names_of_version_0_1_are_read() -> None:
    assert [Preprocess(80, resize=name).resize for name in ("centre", "stretch", "")] == ["crop", "squash", "crop"]


@pytest.mark.parametrize("policy", ["none", "random_erasing", "autoaugment"])
def test_images_grow_in_equal_parts_of_the_epochs(tmp_path: Any, policy: str) -> None:
    settings = DataConfig(
        source=str(write_npz(tmp_path / "toy.npz")), scale_schedule=(4, 6, 8), augment=policy, workers=0
    )
    data = load_data(settings)
    loader = make_train_loader(data, settings, 6, CPU, 0, epochs=6)
    shapes = [next(iter(loader.epoch(epoch))).images.shape[-2:] for epoch in range(7)]
    assert shapes == [(4, 4), (4, 4), (6, 6), (6, 6), (8, 8), (8, 8), (8, 8)]
    if policy != "autoaugment":
        assert not isinstance(loader, WorkerLoader)
        loader = WorkerLoader(data, loader.plan, CPU, settings, 0, size_in=loader.size_in)
        assert [next(iter(loader.epoch(epoch))).images.shape[-1] for epoch in (0, 2, 5)] == [4, 6, 8]
    plain = make_train_loader(data, DataConfig(augment=policy, workers=0), 6, CPU, 0)
    if not isinstance(loader, WorkerLoader) or policy == "autoaugment":
        assert torch.equal(next(iter(plain.epoch(5))).images, next(iter(loader.epoch(5))).images)


def test_scores_and_the_stored_model_have_a_size_of_their_own(tmp_path: Any) -> None:
    npz = write_npz(tmp_path / "toy.npz")
    settings = {"source": str(npz), "eval_size": 12, "resize": "pad", "workers": 0, "scale_schedule": [4, 8]}
    data = load_data(DataConfig(**settings))
    assert next(iter(make_test_loader(data, CPU, workers=0)))[0].shape[-1] == 12
    assert (data.image_size, data.preprocess.image_size) == (8, 12)
    run: dict[str, Any] = {
        "data": settings, "backbone": "wrn_10_1", "method": "baseline", "out": str(tmp_path / "run"),
        "run": {"epochs": 2, "batch_size": 6, "progress": False},
    }  # fmt: skip
    assert "images of 8 px, scored at 12 px;" in "\n".join(mixskd.train(**run, dry_run=True)["plan"])
    mixskd.train(**run)
    stored = mixskd.load(tmp_path / "run").preprocess
    assert (stored.image_size, stored.resize) == (12, "pad")
    assert mixskd.evaluate(tmp_path / "run")["images"] == 6
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert len(mixskd.predict(tmp_path / "run", [tmp_path / "a.png"])) == 1


def test_schedule_ends_at_the_image_size(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"scale_schedule ends at 6 px, but data\.image_size is 8"):
        load_data(DataConfig(source=str(write_npz(tmp_path / "toy.npz")), scale_schedule=(4, 6)))
