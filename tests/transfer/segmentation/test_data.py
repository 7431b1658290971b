from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.segmentation.data import label_table
from mixskd.transfer.segmentation.sources import load_segmentation
from tests.transfer.segmentation.support import write


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    splits = load_segmentation(write(tmp_path))
    assert [*splits] == ["train", "val"]
    train = splits["train"]
    assert (len(train), train.classes, train.notes) == (4, ("sky", "ground", "box"), ())
    mask = np.asarray(train.read_mask(0))
    assert set(np.unique(mask)) == {0, 1, 2, 255}
    assert (mask[0] == 255).all()


def test_classes_can_be_named_in_a_text_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(UserError, match=r"does not name its classes; .*classes.txt"):
        load_segmentation(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghij") + "\n")
    assert len(load_segmentation(tmp_path)["train"].classes) == 10


def other_size(root: Path) -> None:
    Image.new("L", (40, 31)).save(root / "masks" / "train" / "1.png")


def unknown_label(root: Path) -> None:
    Image.fromarray(np.full((32, 40), 5, dtype=np.uint8)).save(root / "masks" / "train" / "1.png")


def no_mask(root: Path) -> None:
    (root / "masks" / "train" / "1.png").unlink()


def no_image(root: Path) -> None:
    (root / "images" / "train" / "1.png").unlink()


def broken_mask(root: Path) -> None:
    (root / "masks" / "train" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")


def broken_image(root: Path) -> None:
    (root / "images" / "train" / "1.png").write_bytes(b"nothing")


def cut_image(root: Path) -> None:
    file = root / "images" / "train" / "1.png"
    Image.effect_noise((40, 32), 50).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-600])


def huge_label(root: Path) -> None:
    values = np.full((32, 40), 2**31 - 1, dtype=np.int32)
    Image.fromarray(values).save(root / "masks" / "train" / "1.png", format="TIFF")


def coloured_mask(root: Path) -> None:
    Image.new("RGB", (40, 32)).save(root / "masks" / "train" / "1.png")


BAD: dict[Callable[[Path], None], str] = {
    other_size: r"the mask .*1.png has 40 x 31 pixels, but its image has 40 x 32",
    unknown_label: r"the mask .*1.png holds the label 5, which is not one of the 3 classes",
    no_mask: r"the mask .*1.png of the image 1.png is missing",
    no_image: r"the image .*images/train/1.png is missing",
    broken_mask: r"cannot read the mask .*1.png",
    broken_image: r"cannot read the image .*1.png",
    cut_image: r"cannot read the image .*1.png",
    huge_label: r"the mask .*1.png holds the label \d{5,}, which is not one of the 3 classes",
    coloured_mask: r"the mask .*1.png has colours \(RGB\)",
}


@pytest.mark.parametrize("damage", BAD)
def test_bad_pair_is_one_line_and_can_be_skipped(damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(write(tmp_path))
    with pytest.raises(UserError, match=BAD[damage]) as caught:
        load_segmentation(tmp_path)
    assert "\n" not in str(caught.value)
    kind = "images" if damage in (broken_image, cut_image) else "annotations"
    assert f"--skip-bad-{kind}" in str(caught.value)
    train = load_segmentation(tmp_path, **{f"skip_{kind}": True})["train"]  # type: ignore[arg-type]
    assert [path.stem for path in train.images] == ["0", "2", "3"]
    what = {"images": "unreadable images", "annotations": "bad annotations"}[kind]
    assert train.notes[0].startswith(f"1 {what} of train are left out; the first: ")


def test_unchecked_bad_mask_is_found_when_it_is_read(tmp_path: Path) -> None:
    unknown_label(write(tmp_path))
    train = load_segmentation(tmp_path, verify="off")["train"]
    with pytest.raises(UserError, match="holds the label 5"):
        train.read_mask(1)


def test_listed_image_that_is_missing_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"the image .*a.jpg is missing"):
        load_segmentation(tmp_path)


def test_folder_of_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images/train and masks/train"):
        load_segmentation(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        load_segmentation(tmp_path / "gone")
    with pytest.raises(UserError, match="did you mean 'camvid'"):
        load_segmentation(tmp_path, "camvit")


def write_pair(root: Path, images: str, masks: str, stem: str, values: list[int], *, palette: bool = False) -> None:
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(values), 1)).save(root / images / f"{stem}.jpg")
    mask = Image.fromarray(np.array([values], dtype=np.uint8))
    if palette:
        mask = mask.convert("P")
        mask.putpalette([k for i in range(256) for k in (i, 255 - i, 7)])
    mask.save(root / masks / f"{stem}.png")


def write_voc(root: Path) -> None:
    write_pair(root, "JPEGImages", "SegmentationClass", "a", [0, 20, 255], palette=True)
    write_pair(root, "JPEGImages", "SegmentationClass", "b", [0, 1, 2], palette=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("b\n")


def test_pascal_voc_and_its_augmented_set(tmp_path: Path) -> None:
    write_voc(tmp_path)
    splits = load_segmentation(tmp_path)
    assert np.asarray(splits["train"].read_mask(0)).tolist() == [[0, 20, 255]]
    assert len(splits["train"].classes) == 21
    assert "the augmented training set is missing" in splits["train"].notes[0]
    write_pair(tmp_path, "JPEGImages", "SegmentationClassAug", "c", [3, 4])
    (tmp_path / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(
        "/JPEGImages/c.jpg /SegmentationClassAug/c.png\n"
    )
    splits = load_segmentation(tmp_path)
    assert [path.stem for path in splits["train"].images] == ["c"]
    assert [path.stem for path in splits["val"].images] == ["b"]
    assert splits["train"].notes == ()


def test_ade20k_ignores_zero_and_counts_from_one(tmp_path: Path) -> None:
    for folder in ("training", "validation"):
        write_pair(tmp_path, f"images/{folder}", f"annotations/{folder}", "x", [0, 1, 150])
    splits = load_segmentation(tmp_path)
    assert len(splits["val"].classes) == 150
    assert np.asarray(splits["train"].read_mask(0)).tolist() == [[255, 0, 149]]
    write_pair(tmp_path, "images/training", "annotations/training", "x", [151])
    with pytest.raises(UserError, match="the label 151"):
        load_segmentation(tmp_path)


def test_coco_stuff_has_171_classes_or_182_raw_values(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        write_pair(tmp_path, split, f"stuffthingmaps/{split}", "x", [0, 12, 181, 255])
    (tmp_path / "labels.txt").write_text("0: unlabeled\n1: person\n13: stop sign\n")
    train = load_segmentation(tmp_path)["train"]
    assert (len(train.classes), train.released_classes) == (171, 182)
    assert train.classes[:1] == ("person",)
    assert train.classes[11] == "stop sign"
    assert np.asarray(train.read_mask(0)).tolist() == [[0, 11, 170, 255]]
    raw = load_segmentation(tmp_path, stuff_classes=182)["train"]
    assert np.asarray(raw.read_mask(0)).tolist() == [[0, 12, 181, 255]]
    with pytest.raises(UserError, match="171 classes that occur, or 182"):
        load_segmentation(tmp_path, stuff_classes=172)
    write_pair(tmp_path, "train2017", "stuffthingmaps/train2017", "x", [11])
    with pytest.raises(UserError, match="the label 11"):
        load_segmentation(tmp_path)


def test_camvid_of_segnet(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_pair(tmp_path, split, f"{split}annot", "x", [0, 10, 11])
    splits = load_segmentation(tmp_path)
    assert [*splits] == ["train", "val", "test"]
    assert np.asarray(splits["test"].read_mask(0)).tolist() == [[0, 10, 255]]


def test_split_without_a_counted_pixel_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    for file in (tmp_path / "masks" / "val").iterdir():
        Image.new("L", (40, 32), 9).save(file)
    splits = load_segmentation(tmp_path)
    splits["train"].check("train")
    with pytest.raises(UserError, match="every pixel of the val split is ignored"):
        splits["val"].check("the val split")


def test_test_split_without_masks_is_left_out_with_a_note(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "test").mkdir()
    Image.new("RGB", (40, 32)).save(tmp_path / "images" / "test" / "x.png")
    splits = load_segmentation(tmp_path)
    assert [*splits] == ["train", "val"]
    assert "has no masks, so it gets no scores" in splits["train"].notes[0]


def test_more_than_255_classes_are_refused() -> None:
    with pytest.raises(UserError, match="at most 255"):
        label_table(256)
