"""Predictions in files: whole or not there, safe for a spreadsheet, and the same as those that are returned."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import mixskd
from mixskd.cli.main import main
from mixskd.deploy.prediction_file import write_predictions
from mixskd.errors import UserError
from tests.deploy.support import photo, photos, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.safetensors")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", each=2)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_the_predictions(model: Path, images: Path, tmp_path: Path) -> None:
    expected = mixskd.predict(model, [images], top=2, threshold=0.8)
    written = mixskd.predict(model, [images], top=2, threshold=0.8, out=tmp_path / "new" / "a.csv")
    unknown = sum(p["class"] == "unknown" for p in expected)
    assert written == {"out": str(tmp_path / "new" / "a.csv"), "images": 6, "unknown": unknown, "skipped": 0}
    found = rows(tmp_path / "new" / "a.csv")
    assert list(found[0]) == ["image", "class", "class_1", "probability_1", "class_2", "probability_2", "error"]
    for row, prediction in zip(found, expected, strict=True):
        assert row["image"] == prediction["image"]
        for rank, likely in enumerate(prediction["classes"], start=1):
            assert row[f"class_{rank}"].removeprefix("'") == likely["name"]
            assert float(row[f"probability_{rank}"]) == likely["probability"]
    text = (tmp_path / "new" / "a.csv").read_text()
    assert ",=cat" not in text
    assert "'=cat" in text


def test_json_lines_hold_the_predictions(model: Path, images: Path, tmp_path: Path) -> None:
    photo(images / "a\nb\udcff.jpg", 7)
    (images / "bad.png").write_bytes(b"")
    expected = mixskd.predict(model, [images])
    written = mixskd.predict(model, [images], out=tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert (written["images"], written["skipped"]) == (8, 1)
    mixskd.predict(model, [images], out=tmp_path / "a.csv")
    found = rows(tmp_path / "a.csv")
    assert [row["image"].removeprefix(f"{images}/") for row in found] == [
        "=cat/0.jpg", "=cat/1.jpg", "a\\nb\\xff.jpg", "ant/0.jpg", "ant/1.jpg", "bad.png", "bee/0.jpg", "bee/1.jpg",
    ]  # fmt: skip
    assert [row["image"] for row in found if row["error"]] == [f"{images}/bad.png"]
    assert found[5]["class"] == found[5]["probability_1"] == ""


def test_command_prints_the_counts(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(model), str(images), "--out", str(tmp_path / "a.csv")]
    assert main([*argv, "--threshold", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.csv: 6 images, 6 of them unknown\n"
    assert main(argv) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*argv, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_failed_prediction_leaves_no_file(model: Path, images: Path, tmp_path: Path) -> None:
    (images / "zebra.png").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot read the image"):
        mixskd.predict(model, [images / "zebra.png"], out=tmp_path / "a.csv")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "b.csv").write_text("mine")
    for overwrite, message in ((False, "exists already"), (True, "cannot read the image")):
        with pytest.raises(UserError, match=message):
            mixskd.predict(model, [images / "zebra.png"], out=tmp_path / "b.csv", overwrite=overwrite)
        assert (tmp_path / "b.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["a.txt", "a", "a.json", "a.csv.gz"])
def test_unknown_suffix_is_refused(name: str, model: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.csv or \.jsonl"):
        mixskd.predict(model, [images], out=tmp_path / name)


def test_predictions_are_streamed_to_the_file(tmp_path: Path) -> None:
    written = []

    def coming():
        for i in range(3000):
            yield {"image": f"{i}.jpg", "class": "a", "classes": [{"name": "a", "probability": 0.5}]}
            written.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    write_predictions(coming(), tmp_path / "a.csv", top=1)
    assert written[2000] > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
