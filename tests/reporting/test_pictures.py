"""Mistakes and suspects have their pictures where the images are here, and are a table where they are not."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone
from mixskd.config import DataConfig
from mixskd.data import DataBundle, ImageSet, Preprocess
from mixskd.data.sources.named import NAMED
from mixskd.errors import UserError
from mixskd.reporting.evidence import Readable, read_evidence
from mixskd.reporting.page.blocks import render_blocks
from mixskd.reporting.page.mistakes import WITHOUT, mistake_section, suspect_section
from tests.artifacts.test_stored_files import RESULTS
from tests.reporting.test_tables import write_run


def write_errors(folder: Path, source: str) -> None:
    """A run on the data set ``source`` with one mistake and one suspect, named by their places."""
    write_run(folder, "baseline-seed0", (70.0, 71.0), **{"method.name": "baseline", "data.source": source})
    result = RESULTS["errors"]
    suspects = [{**entry, "path": None, "label": "<b>"} for entry in result["suspects"]]
    (folder / "baseline-seed0" / "evaluation").mkdir()
    (folder / "baseline-seed0" / "evaluation" / "errors.json").write_text(json.dumps({**result, "suspects": suspects}))


def named(monkeypatch: pytest.MonkeyPatch, here: bool) -> list[bool]:
    """CIFAR-10 is four grey images if it is ``here``; the list gets whether each reading may download."""
    asked: list[bool] = []

    def read(root: Path, size: int, download: bool) -> DataBundle:
        asked.append(download)
        if not here:
            raise RuntimeError("not found")
        images = ImageSet(np.full((4, 32, 32, 3), 90, dtype=np.uint8), np.arange(4) % 2)
        return DataBundle({"train": images, "test": images}, ("a", "b"), Preprocess(32))

    monkeypatch.setitem(NAMED, "cifar10", dataclasses.replace(NAMED["cifar10"], read=read))
    return asked


def test_named_data_set_gives_pictures_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = named(monkeypatch, here=True)
    write_errors(tmp_path, "cifar10")
    readable = Readable()
    for section in (mistake_section, suspect_section):
        shown = render_blocks(section(read_evidence([tmp_path]), readable))
        assert shown.count("data:image/jpeg;base64,") == 1
        assert WITHOUT not in shown
        assert "<b>" not in shown
    assert asked == [False]


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 64)), (1, (32, 64)), (4, (32, 32))])
def test_mistakes_show_what_speaks_for_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, size: tuple[int, int]
) -> None:
    """No picture of a few colours can show what a network of other channels sees."""
    named(monkeypatch, here=True)
    write_errors(tmp_path, "cifar10")
    classes = {entry["predicted"] for entry in RESULTS["errors"]["mistakes"]} | {"another"}
    save_model(
        build_backbone("wrn_10_1", len(classes), channels=channels), tmp_path / "baseline-seed0" / "model.safetensors",
        backbone_name="wrn_10_1", classes=sorted(classes), image_size=32, mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )  # fmt: skip
    shown = render_blocks(mistake_section(read_evidence([tmp_path]), Readable()))
    content = base64.b64decode(shown.partition("data:image/jpeg;base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(content)).size == size
    assert ("the places that speak for the class that it was called" in shown) == (channels < 4)
    suspects = render_blocks(suspect_section(read_evidence([tmp_path]), Readable()))
    assert "the places that speak" not in suspects


def test_missing_images_give_a_table_and_one_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, here=False)
    write_errors(tmp_path, "cifar10")
    shown = render_blocks(suspect_section(read_evidence([tmp_path]), Readable()))
    assert "<img" not in shown
    assert "no image" not in shown
    assert "<td>image 3</td><td>&lt;b&gt;</td>" in shown
    assert shown.count(WITHOUT) == 1


def test_imagenet_is_not_listed_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path, size: int, download: bool) -> DataBundle:
        raise UserError("it is read")

    monkeypatch.setitem(NAMED, "imagenet", dataclasses.replace(NAMED["imagenet"], read=read))
    assert Readable().bundle(DataConfig(source="imagenet")) is None
