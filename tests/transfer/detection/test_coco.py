from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixskd.errors import UserError
from mixskd.transfer.detection.coco import find_splits, load_coco, load_detection
from tests.transfer.detection.support import content, write


def test_labels_follow_the_order_of_ids_and_boxes_are_corners(tmp_path: Path) -> None:
    train = load_detection(write(tmp_path))["train"]
    assert train.classes == ("red", "blue")
    assert train.category_ids == (3, 7)
    assert [len(image.labels) for image in train.images] == [2, 1, 2, 0]
    first = train.images[0]
    assert first.labels.tolist() == [1, 2]
    assert first.boxes.tolist() == [[8, 10, 38, 38], [50, 44, 86, 74]]
    assert train.images[2].crowd.tolist() == [False, True]
    assert train.images[3].boxes.shape == (0, 4)
    assert train.objects == 5


def test_images_without_objects_can_be_left_out(tmp_path: Path) -> None:
    values = content()
    values["annotations"] = [a for a in values["annotations"] if a["image_id"] != 30 or a["iscrowd"]]
    train = load_detection(write(tmp_path, values))["train"]
    assert [image.id for image in train.without_empty().images] == [10, 20]


def edited(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    values = content()
    change(values)
    return values


BAD = {
    "category": (lambda v: v["annotations"][0].update(category_id=4), "10.png.*category id 4"),
    "outside": (lambda v: v["annotations"][1].update(bbox=[80, 80, 30, 10]), "10.png.*outside its image of 96 x 96"),
    "no area": (lambda v: v["annotations"][2].update(bbox=[5, 5, 0, 10]), "20.png.*no area"),
    "not a box": (lambda v: v["annotations"][2].update(bbox=[5, 5]), "20.png.*not .x, y, width, height"),
    "nan": (lambda v: v["annotations"][2].update(bbox=[5, 5, float("nan"), 4]), "20.png.*no area"),
    "image id": (lambda v: v["annotations"][3].update(image_id=31), "image 31, which the file lacks"),
    "missing file": (lambda v: v["images"][3].update(file_name="gone.png"), "gone.png.*missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_annotation_is_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    change, message = BAD[name]
    write(tmp_path, edited(change))
    with pytest.raises(UserError, match=message) as caught:
        load_detection(tmp_path)
    assert "\n" not in str(caught.value)
    assert "--skip-bad-annotations" in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_bad_annotations_are_skipped_and_counted(name: str, tmp_path: Path) -> None:
    change, _ = BAD[name]
    write(tmp_path, edited(change))
    train = load_coco(tmp_path / "train.json", tmp_path / "train", skip_bad=True)
    assert len(train.notes) == 1
    assert train.notes[0].startswith("1 bad annotations of train.json are left out; the first: ")
    assert (len(train), train.objects) == ((3, 5) if name == "missing file" else (4, 4))


def test_a_box_that_ends_within_a_pixel_of_the_border_is_clipped(tmp_path: Path) -> None:
    write(tmp_path, edited(lambda v: v["annotations"][0].update(bbox=[-0.5, 90, 30, 6.6])))
    assert load_detection(tmp_path)["train"].images[0].boxes[0].tolist() == [0, 90, 29.5, 96]


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match=r"train.json is not a COCO file: it has no list 'categories'"):
        load_detection(tmp_path)
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read the annotations .*train.json"):
        load_detection(tmp_path)


def test_both_layouts_are_found(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations" / f"instances_{split}.json").write_text("{}")
    found = find_splits(tmp_path)
    assert found["val"] == (tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017")
    with pytest.raises(UserError, match="holds no detection data"):
        find_splits(tmp_path / "train2017")


def test_splits_with_other_categories_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    other = edited(lambda v: v["categories"].append({"id": 9, "name": "green"}))
    (tmp_path / "val.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="train and val"):
        load_detection(tmp_path)


def test_areas_default_to_those_of_the_boxes(tmp_path: Path) -> None:
    write(tmp_path, edited(lambda v: [a.pop("area") for a in v["annotations"]]))
    torch.testing.assert_close(load_detection(tmp_path)["train"].images[1].area, torch.tensor([1760.0]))
