"""The picture of a batch shows the batch: images, views, partners and mixes with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixskd import UserError, api
from mixskd.cli.main import main
from mixskd.config.build import build_experiment
from mixskd.data import load_data
from mixskd.drawing.picture import Cell
from mixskd.reporting.show_data import STEPS, batch_columns


def columns(method: str) -> dict[str, list[Cell]]:
    experiment = build_experiment(
        {"data.source": "digits", "backbone": "wrn_10_1", "method.name": method, "run.epochs": 1}
    )
    return batch_columns(experiment, load_data(experiment.data), 4)


def test_mix_is_that_of_the_images_beside_it() -> None:
    found = columns("mixup")
    assert list(found) == ["stored", "augmented", *(f"mix {k + 1}" for k in range(STEPS))]
    images = np.stack([image for image, _ in found["augmented"]])
    for image, text in found["mix 1"]:
        (first, a), (second, b) = (line.split() for line in text.splitlines())
        assert float(first) + float(second) == pytest.approx(1)
        names = [name for _, name in found["augmented"]]
        candidates = [
            float(first) * images[i] + float(second) * images[j]
            for i in range(4) for j in range(4) if (names[i], names[j]) == (a, b)
        ]  # fmt: skip
        assert min(np.abs(image - candidate).max() for candidate in candidates) < 0.006


def test_views_and_partners_are_drawn_for_methods_that_use_them() -> None:
    partners = columns("cskd")
    assert "partners 1" in partners
    assert [name for _, name in partners["partners 1"]] == [name for _, name in partners["augmented"]]
    assert "views 1" in columns("ddgsd")
    assert list(columns("baseline")) == ["stored", "augmented"]


def test_command_draws_image_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        for number, name in enumerate(("<b>", "dog")):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 30), (80 * i, 120 * number, 9)).save(
                    tmp_path / "photos" / split / name / f"{i}.png"
                )
    out = tmp_path / "seen.png"
    words = ["--data", str(tmp_path / "photos"), "--data.image-size", "32", "--backbone", "wrn_10_1", "--images", "3"]
    assert main(["show-data", "small_images", *words, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.height > image.width / 3


def test_show_data_rejects_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the name of a PNG"):
        api.show_data(data="digits", out=tmp_path / "data.jpg")
    with pytest.raises(UserError, match="2 or above"):
        api.show_data(data="digits", out=tmp_path / "data.png", images=1)
