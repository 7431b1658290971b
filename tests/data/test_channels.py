"""Grey images, images of many channels, and images of more than eight bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import mixskd
from mixskd.config import DataConfig
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.images import open_image
from mixskd.data.needs import DataNeeds
from mixskd.data.policies import IMAGE_POLICIES
from mixskd.data.preprocess import Preprocess
from mixskd.data.statistics import channel_statistics
from mixskd.data.worker_loader import WorkerLoader
from mixskd.errors import UserError

CPU = torch.device("cpu")


def tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    options = {"planarconfig": "contig"} | options if pixels.ndim == 3 else options
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    return path


def many(channels: int, size: int = 8, **options: Any) -> Preprocess:
    return Preprocess(size, (0.5,) * channels, (0.25,) * channels, **options)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_every_value_of_a_tiff_of_six_channels_arrives(tmp_path: Path, planar: str, kind: type) -> None:
    pixels = (np.random.default_rng(0).random((9, 7, 6)) * (4095 if kind is np.uint16 else 255)).astype(kind)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    path = tiff(tmp_path / "a.tif", stored, planarconfig=planar)
    wanted = many(6) if kind is np.uint8 else many(6, range=(100.0, 4095.0))
    found = open_image(path, wanted)
    assert isinstance(found, torch.Tensor)
    expected = pixels if kind is np.uint8 else (pixels - np.float32(100)) / np.float32(3995)
    assert np.array_equal(found.permute(1, 2, 0), expected)
    assert np.array_equal(open_image("a", wanted, path.read_bytes()), found), "as from a shard"


def test_sixteen_bits_and_pages_are_read(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (5, 6), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    wanted = many(1, range=(0, 65535))
    assert torch.equal(open_image(tmp_path / "a.png", wanted)[0], torch.tensor(grey / np.float32(65535)))
    assert open_image(tmp_path / "a.png", many(3, range=(0, 65535))).shape == (3, 5, 6)
    pages = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", pages, photometric="minisblack", metadata={"axes": "CYX"})
    assert np.array_equal(open_image(tmp_path / "b.tif", many(4)), pages)


def test_grey_stays_grey_and_colour_becomes_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 77, np.uint8)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4), (255, 0, 0)).save(tmp_path / "b.png")
    found = [open_image(tmp_path / f"{name}.png", many(1)) for name in "ab"]
    assert [(image.mode, image.getpixel((0, 0))) for image in found] == [("L", 77), ("L", 76)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pixels", "wanted", "says"),
    [
        (np.zeros((4, 5, 3), np.uint8), many(6), r"it has 3 channels, not 6 as data\.channels says"),
        (np.zeros((4, 5, 6), np.uint16), many(6), "it holds uint16; give the values for 0 and 1, such as --data.range"),
        (np.full((4, 5), np.nan, np.float32), many(1, range=(0, 1)), "values that are not finite"),
        (np.zeros((4, 900, 6), np.uint8), many(6), "sides up to 100:1"),
        (np.zeros((2, 3, 4, 5, 6), np.uint8), many(6), "it has the axes"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, pixels: np.ndarray, wanted: Preprocess, says: str) -> None:
    path = tiff(tmp_path / "a.tif", pixels)
    with pytest.raises(UserError, match=says):
        open_image(path, wanted)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="cannot read the image"):
        open_image(path, wanted)


def arrays(channels: int, kind: type = np.uint8, **options: Any) -> DataBundle:
    pixels = np.random.default_rng(0).random((12, 1, 1, channels)).repeat(8, 1).repeat(8, 2)  # each of one colour
    images = (pixels * 255).astype(np.uint8) if kind is np.uint8 else pixels.astype(np.float32)
    return DataBundle({"train": ImageSet(images, np.arange(12) % 3)}, tuple("abc"), many(channels, **options))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("policy", ["none", "random_erasing"])
def test_workers_and_device_load_the_same_images(channels: int, policy: str) -> None:
    for data in (arrays(channels), arrays(channels, np.float32, range=(0, 1))):
        config = DataConfig(augment=policy, workers=0, flip=False)
        loader = make_train_loader(data, config, 12, CPU, 0, DataNeeds(indices=True))
        assert not isinstance(loader, WorkerLoader)
        others = WorkerLoader(data, loader.plan, CPU, config, 0)
        colours = torch.from_numpy(np.asarray(data.train.images)[:, 4, 4]).float() / (
            1 if data.preprocess.range else 255
        )
        for batch in (next(iter(loader.epoch(0))), next(iter(others.epoch(0)))):
            assert batch.images.shape == (12, channels, 8, 8)
            expected = (colours[batch.extra["indices"]] - 0.5) / 0.25
            same = torch.isclose(batch.images[..., 4, 4], expected, atol=1e-5).all(1)
            assert same.sum() >= (12 if policy == "none" else 4), "but where it was erased"


@pytest.mark.parametrize("policy", IMAGE_POLICIES)
def test_policies_work_on_grey_images_and_are_refused_for_others(policy: str) -> None:
    loader = make_train_loader(arrays(1), DataConfig(augment=policy, workers=0), 12, CPU, 0)
    assert next(iter(loader.epoch(0))).images.shape == (12, 1, 8, 8)
    for data in (arrays(6), arrays(3, np.float32, range=(0, 1))):
        with pytest.raises(UserError, match=f"data.augment {policy} is for grey or RGB images of 8 bits"):
            make_train_loader(data, DataConfig(augment=policy), 12, CPU, 0)


def test_colours_are_refused_for_images_without_them() -> None:
    jitter, grey = DataConfig(color_jitter=(0.4, 0.4), workers=0), DataConfig(color_jitter=(0.4, 0.4, 0.4))
    assert next(iter(make_train_loader(arrays(1), jitter, 12, CPU, 0).epoch(0))).images.shape[1] == 1
    with pytest.raises(UserError, match="grey images have no saturation"):
        make_train_loader(arrays(1), grey, 12, CPU, 0)
    with pytest.raises(UserError, match=r"data\.color_jitter is for grey or RGB"):
        make_train_loader(arrays(2), jitter, 12, CPU, 0)
    with pytest.raises(UserError, match="views by augmix"):
        make_train_loader(arrays(2), DataConfig(), 12, CPU, 0, DataNeeds(views=2, view_policy="augmix"))


def test_statistics_are_those_of_the_channels() -> None:
    data = arrays(6)
    pixels = np.asarray(data.train.images, np.float64) / 255
    mean, std = channel_statistics(data)
    assert np.allclose(mean, pixels.mean((0, 1, 2)))
    assert np.allclose(std, pixels.std((0, 1, 2)))
    data.train.images[..., 2] = 9  # type: ignore[index]
    assert channel_statistics(data)[1][2] == 1


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_tensors_are_resized_by_every_rule(resize: str) -> None:
    p = many(6, 70, resize=resize, range=(0, 1))
    image = torch.full((6, 40, 90), 0.5)
    assert torch.allclose(p.crop()(image), torch.full((6, 70, 70), 0.5), atol=1e-6), "the fill is the mean"
    assert torch.allclose(p.part(70, (0.2, 1), (0.5, 2))(image), torch.full((6, 70, 70), 0.5), atol=1e-6)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, train_labels=np.arange(8) % 2, test_labels=np.arange(4) % 2, **arrays)
    return str(path)


def test_npz_of_any_channels_and_numbers(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    grey = npz(
        tmp_path / "g.npz", train_images=np.full((8, 8, 8), 7, np.uint8), test_images=np.zeros((4, 8, 8), np.uint8)
    )
    assert load_data(DataConfig(source=grey)).train.images.shape[3] == 3  # type: ignore[union-attr]
    assert load_data(DataConfig(source=grey, channels=1)).train.images.shape[3] == 1  # type: ignore[union-attr]
    many = draw.integers(0, 4096, (12, 8, 8, 6), dtype=np.uint16)
    deep = npz(tmp_path / "d.npz", train_images=many[:8], test_images=many[8:])
    data = load_data(DataConfig(source=deep, channels=6, range=(0, 4095)))
    assert np.array_equal(data.train.images, many[:8] / np.float32(4095))
    images, _ = next(iter(make_test_loader(data, CPU)))
    assert images.dtype == torch.float32
    for settings, says in (
        ({"channels": 6}, "is uint16; it must be uint8, 0 to 255, or --data.range"),
        ({"range": (0, 4095)}, "have 6 channels, not 3"),
        ({"channels": 6, "range": (1, 1)}, "two numbers, the smaller first"),
    ):
        with pytest.raises(UserError, match=says):
            load_data(DataConfig(source=deep, **settings))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"leave data\.channels and data\.range out"):
        load_data(DataConfig(source="digits", range=(0, 1)))


def folder(path: Path, channels: int) -> Path:
    """Two classes of six training and two test images of 10 x 8 px: grey PNG, or 16-bit TIFF of six channels."""
    draw = np.random.default_rng(0)
    for i in range(16):
        file = path / ("test" if i % 4 == 3 else "train") / "ab"[i // 8] / f"{i}.{'png' if channels == 1 else 'tif'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if channels == 1:
            Image.fromarray(draw.integers(0, 256, (8, 10), dtype=np.uint8)).save(file)
        else:
            tiff(file, draw.integers(0, 4096, (8, 10, channels), dtype=np.uint16) + 1000 * (i // 8))
    return path


def test_files_of_other_channels_are_found_before_the_run(tmp_path: Path) -> None:
    place = folder(tmp_path / "data", 6)
    settings: dict[str, Any] = {"source": str(place), "image_size": 8, "channels": 6, "range": (0, 5095)}
    load_data(DataConfig(**settings))
    tiff(place / "train" / "a" / "x.tif", np.zeros((8, 10, 5), np.uint16))
    with pytest.raises(UserError, match=r"x\.tif \(it has 5 channels"):
        load_data(DataConfig(**settings))
    data = load_data(DataConfig(**settings, skip_bad_images=True))
    assert data.notes[-1].startswith("left out 1 unreadable image")
    with pytest.raises(UserError, match="has 6 channels, not 4"):
        load_data(DataConfig(**{**settings, "channels": 4}))


def test_suites_work_or_say_what_they_cannot(tmp_path: Path) -> None:
    many = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 4), dtype=np.uint8)
    source = npz(tmp_path / "d.npz", train_images=many[:8], test_images=many[8:])
    run = tmp_path / "run"
    mixskd.train(
        data={"source": source, "channels": 4}, backbone="wrn_10_1", method="mixskd", out=str(run),
        run={"epochs": 1, "batch_size": 4, "progress": False},
    )  # fmt: skip
    results = mixskd.run_suites([run], "accuracy,fgsm,calibration,linearity")["run"]
    assert results["fgsm"]["images"] == 4
    written = (run / "evaluation" / "accuracy.json").stat().st_mtime_ns
    with pytest.raises(UserError, match="the suite corruption is for RGB images of 8 bits"):
        mixskd.run_suites([run], "accuracy,corruption")
    other = npz(tmp_path / "rgb.npz", train_images=many[:8, ..., :3])
    with pytest.raises(UserError, match="the images have 3 channels, not 4"):
        mixskd.run_suites([run], "accuracy,ood", options={"ood": {"data": other}})
    assert (run / "evaluation" / "accuracy.json").stat().st_mtime_ns == written, "refused before any suite"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"suites": "accuracy,corruption"},
            "the suite corruption is for RGB images of 8 bits, and baseline-wrn_10_1-seed0",
        ),
        ({"transfer": {"recipe": "detect_coco"}}, "networks take RGB, but data.channels is 4; leave the transfer out"),
        ({"augments": "none,trivialaugment"}, "data.augment trivialaugment is for grey or RGB images of 8 bits"),
    ],
)
def test_comparison_refuses_what_cannot_take_the_images_before_training(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    source = npz(tmp_path / "d.npz", train_images=np.zeros((8, 8, 8, 4), np.uint8))
    with pytest.raises(UserError, match=says):
        mixskd.compare(
            methods="baseline",
            backbone="wrn_10_1",
            data={"source": source, "channels": 4},
            out=tmp_path / "c",
            **settings,
        )
    assert not (tmp_path / "c").exists()
