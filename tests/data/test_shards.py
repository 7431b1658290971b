"""Shards against the same images in a folder, to the bit; what is wrong with a shard is said in a line."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.config import DataConfig
from mixskd.data import DataBundle, load_data, make_test_loader, make_train_loader, verify
from mixskd.data.images import check_image
from mixskd.data.sources.shards import expand
from mixskd.errors import UserError

CPU = torch.device("cpu")


def write_shard(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve training and six test images in three classes, as a folder and as shards of five."""
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    shards.mkdir()
    for split, count, first in (("train", 12, 0), ("test", 6, 100)):
        samples = [(f"{label}{i}", label, jpeg(first + i)) for label in range(3) for i in range(label, count, 3)]
        for key, label, content in samples:
            path = folder / split / f"class{label}" / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for number in range(0, count, 5):
            files = {}
            for i, (key, label, content) in enumerate(sorted(samples)[number : number + 5]):
                files[f"./{key}.jpg"] = content
                odd = i % 2
                files[f"./{key}.{'json' if odd else 'cls'}"] = (
                    json.dumps({"label": label, "source": "x"}) if odd else str(label)
                ).encode()
            write_shard(shards / f"{split}-{number // 5:04d}.tar", files)
    (shards / "classes.txt").write_text("class0\nclass1\nclass2\n")
    return folder, shards


def test_shards_give_the_images_of_the_folder(both: tuple[Path, Path]) -> None:
    bundles = [load_data(DataConfig(source=str(path), image_size=32)) for path in both]
    assert bundles[0].classes == bundles[1].classes
    for loader in (
        lambda bundle: make_train_loader(bundle, DataConfig(workers=0), 4, CPU, 0).epoch(1, 1),
        lambda bundle: make_test_loader(bundle, CPU, workers=0, batch_size=4),
    ):
        for one, other in zip(loader(bundles[0]), loader(bundles[1]), strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_named_shards_with_a_hold_out(both: tuple[Path, Path]) -> None:
    shards = both[1]
    for path in shards.glob("test-*"):
        path.unlink()
    source = f"{shards}/train-{{0000..0001}}.tar::{shards}/train-0002.tar"
    data = load_data(DataConfig(source=source, image_size=32, holdout=0.25, per_class=2))
    assert (len(data.train), len(data.test)) == (6, 3)
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert len(expand("{0..1}-{0..2}.tar")) == 6


def test_run_on_shards(both: tuple[Path, Path], tmp_path: Path) -> None:
    summary = mixskd.train(
        backbone="wrn_10_1",
        method="mixskd",
        out=str(tmp_path / "run"),
        data=str(both[1]),
        optim={"schedule": "cosine", "warmup_epochs": 0},
        run={"epochs": 1, "batch_size": 4, "progress": False},
        **{"data.image_size": 32},
    )
    assert summary["images"] == 12


def test_missing_and_compressed_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no shard .*b-1\.tar"):
        load_data(DataConfig(source=str(tmp_path / "b-{1..2}.tar")))
    with tarfile.open(tmp_path / "train-0.tar", "w:gz"):
        pass
    with pytest.raises(UserError, match="uncompressed tar"):
        load_data(DataConfig(source=str(tmp_path)))


def test_an_unreadable_member_is_named_or_left_out(tmp_path: Path) -> None:
    files = {f"{i}.{e}": c for i in range(6) for e, c in (("jpg", jpeg(i)), ("cls", str(i % 2).encode()))}
    write_shard(tmp_path / "train-0.tar", {**files, "3.jpg": jpeg(3)[:300]})
    settings: dict[str, Any] = {"source": str(tmp_path), "holdout": 0.5}
    for options in ({}, {"verify": "headers", "max_pixels": 1999}):
        with pytest.raises(UserError, match=r"train-0\.tar \(at byte \d+\)"):
            load_data(DataConfig(**settings, **options))
    data = load_data(DataConfig(**settings, verify="off"))
    with pytest.raises(UserError, match=r"train-0\.tar \(at byte \d+\)"):
        list(make_train_loader(data, DataConfig(workers=0), 2, CPU, 0).epoch(0)) + list(
            make_test_loader(data, CPU, workers=0)
        )
    data = load_data(DataConfig(**settings, skip_bad_images=True))
    assert len(data.train) + len(data.test) == 5
    assert re.fullmatch(r"left out 1 unreadable image, the first .*train-0\.tar \(at byte \d+\)", data.notes[-1])


def test_images_of_shards_are_verified_once(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for file in both[1].iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    reads: list[str] = []
    monkeypatch.setattr(
        verify, "check_image", lambda path, *x, **named: reads.append(path) or check_image(path, *x, **named)
    )
    config = DataConfig(source=str(both[1]), image_size=32)
    first = load_data(config)
    assert len(reads) == len(set(reads)) == 18
    assert np.array_equal(first.train.digests, load_data(config).train.digests)
    assert len(reads) == 18, "a warm start decodes nothing"
    os.utime(both[1] / "train-0001.tar", (1_700_000_001, 1_700_000_001))
    load_data(config)
    assert len(reads) == 23, "and reads a shard that was changed again"
    load_data(dataclasses.replace(config, verify="full"))
    assert len(reads) == 41
    with pytest.raises(UserError, match="50 x 40 pixels; max_pixels is 1,999"):
        load_data(dataclasses.replace(config, max_pixels=1999))


def test_an_image_in_two_splits_of_shards_is_found(tmp_path: Path) -> None:
    def files(first: int) -> dict[str, bytes]:
        return {f"{i}.{e}": c for i in range(4) for e, c in (("jpg", jpeg(first + i)), ("cls", str(i % 2).encode()))}

    write_shard(tmp_path / "train-0.tar", files(0))
    write_shard(tmp_path / "test-0.tar", files(3))
    assert "1 training image also in val or test" in load_data(DataConfig(source=str(tmp_path))).notes[-1]
    dropped = load_data(DataConfig(source=str(tmp_path), duplicates="drop"))
    assert len(dropped.train) == 3


def with_checksums(shards: Path) -> None:
    """Write the SHA-256 of each member, as ``sha256sum`` does, and make all files a year old."""
    for shard in shards.glob("*.tar"):
        with tarfile.open(shard) as opened:
            lines = [f"{hashlib.sha256(opened.extractfile(m).read()).hexdigest()}  {m.name}\n" for m in opened]  # type: ignore[union-attr]
        shard.with_name(f"{shard.name}.sha256").write_text("".join(lines))
        for file in (shard, shard.with_name(f"{shard.name}.sha256")):
            os.utime(file, (1_700_000_000, 1_700_000_000))


def every_image(data: DataBundle) -> list[bytes]:
    return [member.read() for split in data.splits.values() for member in split.images]


@pytest.mark.parametrize("checked", [False, True])
def test_index_of_shards_is_kept(both: tuple[Path, Path], checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if checked:
        with_checksums(both[1])
    for file in both[1].iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    config = DataConfig(source=str(both[1]), image_size=32)
    first = load_data(config)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        warm = load_data(config)
    assert first.fingerprint == warm.fingerprint
    assert every_image(first) == every_image(warm)
    os.utime(both[1] / "train-0001.tar")
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(UserError, match=r"train-0001\.tar"):
        load_data(config)


def test_changed_bytes_of_shards_with_checksums_are_found(both: tuple[Path, Path]) -> None:
    with_checksums(both[1])
    config = DataConfig(source=str(both[1]), image_size=32)
    data = load_data(config)
    images = data.train.subset(np.array([3])).images
    shard = images[0].shard
    content = bytearray(shard.read_bytes())
    content[images[0].offset + 200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train-0000\.tar \(at byte \d+\) does not match its checksum"):
        load_data(config)
    with pytest.raises(UserError, match=r"train-0000\.tar \(at byte \d+\) does not match its checksum"):
        every_image(load_data(dataclasses.replace(config, verify="off")))
    content[images[0].offset + 200] ^= 1
    place = content.index(b'"label": ') + len(b'"label": ')
    content[place] = ord("1") if content[place] != ord("1") else ord("0")
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"json does not match its checksum"):
        load_data(config)


@pytest.mark.parametrize(("text", "message"), [("zz  a.jpg\n", "cannot read the checksums"), ("", "has no SHA-256")])
def test_bad_checksum_files(both: tuple[Path, Path], text: str, message: str) -> None:
    (both[1] / "train-0000.tar.sha256").write_text(text)
    with pytest.raises(UserError, match=message):
        load_data(DataConfig(source=str(both[1]), image_size=32))
