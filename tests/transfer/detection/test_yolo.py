from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.detection.sources import load_detection

YAML = "path: nowhere/to/be/found\ntrain: images/train\nval: images/val\nnames: {0: red, 1: blue}\n"


def write(root: Path, labels: str = "1 0.5 0.25 0.25 0.5\n\n0 0.1 0.1 0.4 0.1 0.3 0.6\n", yaml: str = YAML) -> Path:
    """Two images of 80 x 40 pixels in each split; the second has no file of labels."""
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (80, 40)).save(root / "images" / split / name)
        (root / "labels" / split / "a.txt").write_text(labels)
    (root / "data.yaml").write_text(yaml)
    return root


@pytest.mark.parametrize("source", ["", "data.yaml"])
def test_boxes_and_polygons_become_corners_in_pixels(source: str, tmp_path: Path) -> None:
    splits = load_detection(write(tmp_path) / source)
    assert [*splits] == ["train", "val"]
    first, second = splits["train"].images
    assert (splits["train"].classes, splits["train"].category_ids) == (("red", "blue"), (0, 1))
    assert first.labels.tolist() == [2, 1]
    torch.testing.assert_close(first.boxes, torch.tensor([[30.0, 0, 50, 20], [8, 4, 32, 24]]))
    assert second.boxes.shape == (0, 4)
    assert (first.width, first.height) == (80, 40)


def test_lists_of_files_and_roboflows_paths_are_read(tmp_path: Path) -> None:
    write(tmp_path, yaml="train: [train.txt]\nval: ../images/val\nnames: [red, blue]\n")
    (tmp_path / "train.txt").write_text("./images/train/a.jpg\n")
    splits = load_detection(tmp_path)
    assert [len(split) for split in splits.values()] == [1, 2]
    assert splits["train"].objects == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("2 0.5 0.5 0.2 0.2", "the class is not one of the 2"),
        ("1.5 0.5 0.5 0.2 0.2", "is not a class index with a box"),
        ("nan 0.5 0.5 0.2 0.2", "is not a class index with a box"),
        ("1 0.5 0.5 0.2", "is not a class index with a box"),
        ("1 0.5 0.5 nan 0.2", "negative width"),
        ("1 0.5 0.5 0.2 red", "does not hold numbers only"),
        ("1 50 50 20 20", "outside its image of 80 x 40"),
    ],
)
def test_bad_label_gives_one_line_and_can_be_skipped(labels: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, f"0 0.5 0.5 0.2 0.2\n{labels}\n")
    with pytest.raises(UserError, match=rf"object 2 of .*labels/train/a.txt.*{message}.*--skip-bad-annotations"):
        load_detection(tmp_path)
    train = load_detection(tmp_path, skip_annotations=True)["train"]
    assert train.objects == 1
    assert train.notes[0].startswith("1 bad annotations of train are left out")


@pytest.mark.parametrize("names", ["{1: a, 2: b}", "{0: a, x: b}", "red", "[]"])
def test_classes_must_be_numbered_from_zero(names: str, tmp_path: Path) -> None:
    write(tmp_path, yaml=f"train: images/train\nval: images/val\nnames: {names}\n")
    with pytest.raises(UserError, match=r"'names' in .*data.yaml must be a list"):
        load_detection(tmp_path)


def test_missing_folder_and_damaged_image_are_named(tmp_path: Path) -> None:
    write(tmp_path, yaml="train: images/train\nval: images/nowhere\nnames: [a, b]\n")
    with pytest.raises(UserError, match="names images/nowhere, which does not exist"):
        load_detection(tmp_path)
    write(tmp_path)
    (tmp_path / "images" / "train" / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot read the image .*b.jpg.*--skip-bad-images"):
        load_detection(tmp_path)
    assert len(load_detection(tmp_path, skip_images=True)["train"]) == 1
