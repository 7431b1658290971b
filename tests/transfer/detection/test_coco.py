from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.detection.sources import find_coco, load_detection
from tests.transfer.detection.support import content, write

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


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


def nested(depth: int = 100_000) -> str:
    return "[" * depth + "]" * depth


# What is changed in train.json, the message, and what is left when the item is skipped: images and objects.
BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str, tuple[int, int]]] = {
    "category": (lambda v: v["annotations"][0].update(category_id=4), "10.png.*category id 4", (4, 4)),
    "outside": (lambda v: v["annotations"][1].update(bbox=[80, 80, 30, 10]), "10.png.*outside its image", (4, 4)),
    "negative": (lambda v: v["annotations"][2].update(bbox=[5, 5, -3, 10]), "20.png.*negative width", (4, 4)),
    "not a box": (lambda v: v["annotations"][2].update(bbox=[5, 5]), "annotation 2 .*of length 4.*bbox", (4, 4)),
    "box of text": (lambda v: v["annotations"][2].update(bbox="wide"), "annotation 2 .*bbox", (4, 4)),
    "null box": (lambda v: v["annotations"][2].update(bbox=None), "annotation 2 .*got `null`.*bbox", (4, 4)),
    "nan": (lambda v: v["annotations"][2].update(bbox=[5, 5, float("nan"), 4]), "annotation 2 .*bbox", (4, 4)),
    "nan image id": (lambda v: v["annotations"][2].update(image_id=float("nan")), "annotation 2 .*image_id", (4, 4)),
    "null category": (lambda v: v["annotations"][2].update(category_id=None), "annotation 2 .*category_id", (4, 4)),
    "area": (lambda v: v["annotations"][2].update(area="large"), "annotation 2 .*area", (4, 4)),
    "crowd": (lambda v: v["annotations"][2].update(iscrowd=[1]), "annotation 2 .*iscrowd", (4, 4)),
    "a number": (lambda v: v["annotations"].append(5), "annotation 5 .*Expected `object`", (4, 5)),
    "image id": (lambda v: v["annotations"][3].update(image_id=31), "image 31, which the file lacks", (4, 4)),
    "image width": (lambda v: v["images"][3].update(width=None), "image 3 .*width", (3, 5)),
    "image of text id": (lambda v: v["images"][3].update(id="forty"), "image 3 .*id", (3, 5)),
    "file number": (lambda v: v["images"][3].update(file_name=40), "image 3 .*file_name", (3, 5)),
    "missing file": (lambda v: v["images"][3].update(file_name="gone.png"), "gone.png.*missing", (3, 5)),
    "endless name": (lambda v: v["images"][3].update(file_name="x" * 5000), "missing", (3, 5)),
    "other folder": (lambda v: v["images"][3].update(file_name="../val/40.png"), "outside the image folder", (3, 5)),
    "absolute path": (lambda v: v["images"][3].update(file_name="/etc/passwd"), "outside the image folder", (3, 5)),
    "wrong size": (lambda v: v["images"][3].update(height=97), "its annotations say 96 x 97", (3, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_annotation_is_one_line_and_can_be_skipped(name: str, tmp_path: Path) -> None:
    change, message, left = BAD[name]
    write(tmp_path, edited(change))
    (tmp_path / "val.json").write_text(json.dumps(content()))
    with pytest.raises(UserError, match=message) as caught:
        load_detection(tmp_path)
    assert "\n" not in str(caught.value)
    assert "train.json" in str(caught.value) or "40.png" in str(caught.value)
    assert "--skip-bad-annotations" in str(caught.value)
    train = load_detection(tmp_path, skip_annotations=True)["train"]
    assert len(train.notes) == 1
    assert train.notes[0].startswith("1 bad annotations of train.json are left out; the first: ")
    assert (len(train), train.objects) == left


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the annotations .*train.json"),
        ("\ud800", "cannot read the annotations .*train.json"),
        ("[]", "train.json is not a COCO file: Expected `object`"),
        ('{"images": []}', "train.json is not a COCO file: .*`categories`"),
        ('{"images": 3, "categories": []}', "train.json is not a COCO file: .*images"),
        ('{"images": [], "categories": []}', "names no category"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "names no image"),
        ('{"images": [], "categories": [{"id": NaN, "name": "a"}]}', "category 0 of .* cannot be used: .*id"),
        ('{"images": [], "categories": [{"id": 1, "name": null}]}', "category 0 of .* cannot be used: .*name"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "two categories the same"),
        (f'{{"images": {nested()}, "categories": []}}', "nested too deeply"),
        (f'{{"images": [], "categories": [{{"id": 1, "name": {nested()}}}]}}', "nested too deeply"),
    ],
)
def test_unusable_file_gives_one_line(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=message) as caught:
        load_detection(tmp_path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.sampled_from(["images", "annotations", "categories"]), row=st.integers(0, 1), value=JSON,
    key=st.none() | st.sampled_from(["id", "file_name", "width", "image_id", "category_id", "bbox", "area", "name"]),
)  # fmt: skip
def test_any_value_anywhere_is_accepted_skipped_or_gives_one_line(
    part: str, row: int, key: str | None, value: Any, tmp_path: Path
) -> None:
    values = content()
    if key is None:
        values[part][row] = value
    else:
        values[part][row][key] = value
    if not (tmp_path / "train").is_dir():
        write(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(values))
    for skip in (False, True):
        try:
            train = load_detection(tmp_path, skip_annotations=skip, verify="off")["train"]
        except UserError as error:
            lines = str(error).count("\n") + 1
        else:
            lines = 1
            assert all(image.boxes.isfinite().all() and image.area.isfinite().all() for image in train.images)
        assert lines == 1


def test_boxes_of_zero_size_are_left_out_with_a_note(tmp_path: Path) -> None:
    """As images 200365 and 550395 of COCO's train2017 have them."""

    def change(values: dict[str, Any]) -> None:
        values["annotations"][0]["bbox"] = [9.98, 38.01, 22.4, 0.0]
        values["annotations"][1]["bbox"] = [50, 44, 1e-9, 30]
        values["annotations"][2]["bbox"] = [96.5, 20, 0.4, 40]  # beyond the border by less than a pixel

    train = load_detection(write(tmp_path, edited(change)))["train"]
    assert train.objects == 2
    assert re.match(
        "3 boxes of zero or almost zero width .*train.json are left out; the first: .*10.png", train.notes[0]
    )


def test_unreadable_images_are_found_before_the_run(tmp_path: Path) -> None:
    file = write(tmp_path) / "train" / "20.png"
    Image.effect_noise((96, 96), 50).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-9000])
    with pytest.raises(UserError, match=r"cannot read the image .*20.png.*--skip-bad-images"):
        load_detection(tmp_path, skip_annotations=True)
    train = load_detection(tmp_path, skip_images=True)["train"]
    assert [image.id for image in train.images] == [10, 30, 40]
    assert train.notes[0].startswith("1 unreadable images of train.json are left out; the first: ")


def test_box_within_a_pixel_of_the_border_is_clipped(tmp_path: Path) -> None:
    write(tmp_path, edited(lambda v: v["annotations"][0].update(bbox=[-0.5, 90, 30, 6.6])))
    assert load_detection(tmp_path)["train"].images[0].boxes[0].tolist() == [0, 90, 29.5, 96]


def test_coco_layouts_are_found(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations" / f"instances_{split}.json").write_text("{}")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "_annotations.coco.json").write_text("{}")
    assert find_coco(tmp_path) == {
        "train": (tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017"),
        "val": (tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017"),
        "test": (tmp_path / "test" / "_annotations.coco.json", tmp_path / "test"),
    }
    with pytest.raises(UserError, match="holds no detection data"):
        load_detection(tmp_path / "train2017")


def test_test_split_without_annotations_is_left_out_with_a_note(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train").joinpath("../test").mkdir()
    for image in (tmp_path / "val").iterdir():
        (tmp_path / "test" / image.name).write_bytes(image.read_bytes())
    without = content()
    del without["annotations"]
    for values in ({**content(), "annotations": []}, without):
        (tmp_path / "test.json").write_text(json.dumps(values))
        splits = load_detection(tmp_path)
        assert [*splits] == ["train", "val"]
        assert "the test split of" in splits["train"].notes[0]
        assert "has no annotations, so it gets no scores" in splits["train"].notes[0]


def test_splits_with_other_categories_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    other = edited(lambda v: v["categories"].append({"id": 9, "name": "green"}))
    (tmp_path / "val.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="train and val"):
        load_detection(tmp_path)


def test_areas_default_to_those_of_the_boxes(tmp_path: Path) -> None:
    write(tmp_path, edited(lambda v: [a.pop("area") for a in v["annotations"]]))
    torch.testing.assert_close(load_detection(tmp_path)["train"].images[1].area, torch.tensor([1760.0]))


@pytest.mark.parametrize(
    ("crowds", "message"), [(True, "every object of the train split is a crowd"), (False, "no annotated")]
)
def test_split_without_a_usable_object_is_refused(crowds: bool, message: str, tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        values["annotations"] = [{**one, "iscrowd": 1} for one in values["annotations"]] if crowds else []

    train = load_detection(write(tmp_path, edited(change)))["train"]
    with pytest.raises(UserError, match=message):
        train.check("the train split")
