"""What loads, how it is batched, and what is refused with one line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFile

from mixskd.config import DataConfig
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.images import check_image, decode_image
from mixskd.errors import UserError

CPU = torch.device("cpu")


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "val"), classes: int = 2, images: int = 4) -> Path:
    generator = np.random.default_rng(0)
    for split in splits:
        for c in range(classes):
            folder = root / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(images):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def load(source: object, **options):
    return load_data(DataConfig(source=str(source), **options))


def train_loader(data, batch: int, **options):
    return make_train_loader(data, DataConfig(**{"workers": 0, **options}), batch, CPU, seed=0)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest removes our own filter
def test_limit_on_pixels_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("I;16", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for read in (decode_image, check_image):
        with pytest.raises(UserError, match=r"large\.png \(13000 x 13000 pixels; max_pixels is 100,000,000\)"):
            read(path)


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()  # a name means the data set, ./digits would be the folder
    monkeypatch.chdir(tmp_path)
    data = load("digits")
    assert (len(data.train) + len(data.test), len(data.classes), data.image_size) == (1797, 10, 16)


def test_npz(npz: Path) -> None:
    data = load(npz)
    assert (len(data.train), len(data.test), data.classes, data.image_size) == (12, 6, ("a", "b", "c"), 8)
    grey = npz.with_name("grey.npz")
    np.savez(grey, train_images=np.zeros((9, 4, 4), np.uint8), train_labels=np.arange(9)[:, None] % 3)
    data = load(grey, holdout=0.34)
    assert (len(data.train), len(data.test)) == (6, 3)
    assert sorted(data.test.labels.tolist()) == [0, 1, 2]


def test_truncated_and_foreign_npz(npz: Path) -> None:
    for content in (npz.read_bytes()[:100], b"text", b""):
        npz.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .* not a zip archive"):
            load(npz)


def test_damaged_npz_is_refused(npz: Path) -> None:
    with np.load(npz) as file:
        np.savez_compressed(npz, **file)
    whole = npz.read_bytes()
    for place in range(30, len(whole) - 30, 7):
        npz.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(UserError):  # a few bytes mean nothing
            load(npz)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of some damages
def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ExifTags.Base.Make] = "camera"
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert decode_image(tmp_path / "a.jpg").size == (10, 20)
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif")
    end = start - 2 + int.from_bytes(whole[start - 2 : start], "big")
    for place in range(start + 6, end):
        for flip in (0x01, 0x02, 0x80, 0xFF):
            content = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
            assert sorted(decode_image("a.jpg", content).size) == [10, 20]


def test_fingerprint_changes_with_the_images(tmp_path: Path, npz: Path) -> None:
    root = make_folder(tmp_path / "a")
    before = load(root).fingerprint
    assert load(root).fingerprint == before
    root.rename(tmp_path / "moved")
    assert load(tmp_path / "moved").fingerprint == before
    image = next((tmp_path / "moved" / "train" / "class0").iterdir())
    image.rename(image.with_name(f"other{image.suffix}"))
    assert load(tmp_path / "moved").fingerprint != before
    assert load(npz).fingerprint != load(npz, per_class=2).fingerprint


def test_folders(tmp_path: Path) -> None:
    data = load(make_folder(tmp_path / "a"), image_size=32)
    assert (len(data.train), len(data.splits["val"]), data.classes) == (8, 8, ("class0", "class1"))
    assert data.scored == "val"
    single = make_folder(tmp_path / "b") / "train"
    data = load(single, image_size=32, holdout=0.25)
    assert (len(data.train), len(data.test)) == (6, 2)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data at"):
        load(tmp_path / "missing")
    root = make_folder(tmp_path / "a")
    (root / "train" / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image"):
        load(root)
    (root / "train" / "empty").rmdir()
    bad = root / "train" / "class0" / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        load(root)
    data = load(root, skip_bad_images=True)
    assert len(data.train) == 8
    assert data.notes == (f"left out 1 unreadable image, the first {bad}",)
    bad.unlink()
    (root / "val" / "class1").rename(root / "val" / "other")
    with pytest.raises(UserError, match=r"training images lack: other"):
        load(root)
    with pytest.raises(UserError, match="two class folders"):
        load(make_folder(tmp_path / "one", classes=1))
    with pytest.raises(UserError, match="did you mean 'cifar100'"):
        load("cifar1000")


def test_image_modes(tmp_path: Path) -> None:
    gradient = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    rgb = Image.fromarray(np.stack([gradient] * 3, axis=2))
    images = {
        "grey.png": Image.fromarray(gradient), "palette.png": rgb.quantize(64), "rgba.png": rgb.convert("RGBA"),
        "cmyk.tif": rgb.convert("CMYK"), "deep.png": Image.fromarray(gradient.astype(np.uint16) * 257),
    }  # fmt: skip
    for name, image in images.items():
        image.save(tmp_path / name)
        decoded = decode_image(tmp_path / name)
        assert decoded.mode == "RGB"
        assert np.abs(np.asarray(decoded).astype(int) - np.asarray(rgb)).max() <= 3, name
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(decode_image(tmp_path / "clear.png")).min() == 255  # transparency lies over white


@pytest.mark.parametrize("kind", ["array", "files"])
def test_batches_are_a_function_of_seed_epoch_and_step(kind: str, tmp_path: Path, npz: Path) -> None:
    data = load(npz) if kind == "array" else load(make_folder(tmp_path / "f", images=6), image_size=24)
    loader, test_loader = train_loader(data, 4), make_test_loader(data, CPU, workers=0)
    again = train_loader(data, 4, workers=2)
    first, second = list(loader.epoch(1)), list(again.epoch(1, start=1))
    assert len(first) == len(loader) == 3
    for one, other in zip(first[1:], second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert not torch.equal(first[0].images, next(iter(loader.epoch(2))).images)
    assert first[0].images.dtype == torch.float32
    assert sum(len(labels) for _, labels in test_loader) == len(data.splits[data.scored])


def test_an_epoch_holds_each_image_once_and_is_normalised(npz: Path) -> None:
    data = load(npz)
    loader, test_loader = train_loader(data, 4), make_test_loader(data, CPU)
    labels = torch.cat([batch.labels for batch in loader.epoch(0)])
    assert sorted(labels.tolist()) == sorted(data.train.labels.tolist())
    images, _ = next(iter(test_loader))
    expected = (data.test.images[0].astype(np.float64) / 255 - data.mean) / data.std
    assert np.allclose(images[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_crops_and_flips_show_the_image_itself(npz: Path) -> None:
    data = load(npz)
    loader = train_loader(data, 12)
    images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2)
    out = loader.load(torch.arange(12), torch.rand(3, 12), 8)
    padded = loader.normalise(torch.nn.functional.pad(images, [loader.pad] * 4))
    for i in range(12):
        crops = [padded[i, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        assert any(torch.equal(out[i], c) or torch.equal(out[i], c.flip(2)) for c in crops)


def test_test_loader_of_files(tmp_path: Path) -> None:
    data = load(make_folder(tmp_path, images=3), image_size=96)
    batches = list(make_test_loader(data, CPU, workers=0, batch_size=4))
    assert [len(y) for _, y in batches] == [4, 2]
    assert batches[0][0].shape[1:] == (3, 96, 96)


def test_the_first_images_of_each_class(npz: Path) -> None:
    whole, few = (load_data(DataConfig(source=str(npz), per_class=n)) for n in (None, 2))
    assert few.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(few.train.images, np.asarray(whole.train.images)[:6])
    assert len(few.test) == len(whole.test)
    with pytest.raises(UserError, match=r"data\.per_class must be 1 or above"):
        DataConfig(per_class=0)


def test_flip_setting_overrides_the_data_set(npz: Path) -> None:
    assert [load_data(DataConfig(source=str(npz), flip=flip)).flip for flip in (None, True, False)] == [
        True,
        True,
        False,
    ]
    assert not load_data(DataConfig()).flip
