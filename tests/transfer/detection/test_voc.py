from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mixskd.errors import UserError
from mixskd.transfer.detection.sources import load_detection


def xml(*objects: tuple[str, str, int]) -> str:
    """An annotation of objects: name, ``xmin ymin xmax ymax`` and whether it is difficult."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, box.split(), strict=True))
        + "</bndbox></object>"
        for name, box, difficult in objects
    ]
    return f"<annotation><filename>ignored.jpg</filename>{''.join(parts)}</annotation>"


def write(root: Path, text: str = xml(("dog", "1 1 10 20", 0), ("cat", "11 5 80 40", 1))) -> Path:
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    (root / "Annotations").mkdir()
    for split in ("train", "val"):
        Image.new("RGB", (80, 40)).save(root / "JPEGImages" / f"{split}1.jpg")
        (root / "Annotations" / f"{split}1.xml").write_text(text)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{split}1\n")
    return root


def test_pixels_are_counted_from_one_and_difficult_objects_are_crowds(tmp_path: Path) -> None:
    splits = load_detection(write(tmp_path))
    (image,) = splits["train"].images
    assert splits["train"].classes == ("cat", "dog")
    assert image.boxes.tolist() == [[0, 0, 10, 20], [10, 4, 80, 40]]
    assert image.labels.tolist() == [2, 1]
    assert image.crowd.tolist() == [False, True]
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    assert load_detection(tmp_path)["val"].images[0].labels.tolist() == [1, 3]


def test_xml_files_beside_their_images_are_found(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (80, 40)).save(tmp_path / folder / "x.png")
        (tmp_path / folder / "x.xml").write_text(xml(("dog", "1 1 10 20", 0)))
    assert [*load_detection(tmp_path)] == ["train", "val"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "cannot read .*train1.xml"),
        (BOMB, "cannot read .*train1.xml .it defines entities"),
        ("\ud800", "cannot read .*train1.xml"),
        (xml(("dog", "1 1 ten 20", 0)), "object 1 of .*train1.xml has no bndbox of four numbers"),
        (xml(("dog", "1 1 nan 20", 0)), "object 1 of .*train1.xml: the box"),
        (xml(("dog", "1 1 100 20", 0)), "object 1 of .*train1.xml: the box .* lies outside its image"),
        ("<annotation><object><name>dog</name></object></annotation>", "has no bndbox"),
    ],
)
def test_bad_file_gives_one_line_and_can_be_skipped(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "Annotations" / "train1.xml").write_bytes(text.encode("utf-8", "surrogatepass"))
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(UserError, match=message) as caught:
        load_detection(tmp_path)
    assert "\n" not in str(caught.value)
    assert load_detection(tmp_path, skip_annotations=True)["train"].notes[0].startswith("1 bad annotations of train")


def test_unknown_class_and_missing_image_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "Annotations" / "val1.xml").write_text(xml(("cow", "1 1 10 20", 0)))
    with pytest.raises(UserError, match=r"object 1 of .*val1.xml: the class is not one of the 2"):
        load_detection(tmp_path)
    (tmp_path / "JPEGImages" / "train1.jpg").unlink()
    with pytest.raises(UserError, match=r"the image of .*train1.xml is missing"):
        load_detection(tmp_path)
