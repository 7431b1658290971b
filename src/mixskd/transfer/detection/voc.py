"""Boxes in the XML files of Pascal VOC."""

from pathlib import Path
from xml.etree import ElementTree

from mixskd.data.images import EXTENSIONS
from mixskd.errors import first_line
from mixskd.transfer.detection.data import Box, DetectionSet, images_from
from mixskd.transfer.source_files import BadItems, lines_of

NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
Objects = list[tuple[str, Box]]  # the class name of each


def find_voc(root: Path) -> dict[str, list[Path]]:
    """The XML files of each split: ``ImageSets/Main/SPLIT.txt`` with ``Annotations/``, or ``SPLIT/*.xml``.

    Empty if ``root`` has neither. Raises UserError for a list that cannot be read.
    """
    found: dict[str, list[Path]] = {}
    for split, names in NAMES.items():
        for name in names:
            listing, folder = root / "ImageSets" / "Main" / f"{name}.txt", root / name
            if listing.is_file() and (root / "Annotations").is_dir():
                found[split] = [root / "Annotations" / f"{line.split()[0]}.xml" for line in lines_of(listing)]
            elif folder.is_dir() and (files := sorted(folder.glob("*.xml"))):
                found[split] = files
    return found


def voc_splits(root: Path, files: dict[str, list[Path]], bad: dict[str, BadItems]) -> dict[str, DetectionSet]:
    """The splits of XML ``files`` (see :func:`find_voc`); ``bad`` counts what is left out of each.

    The classes are those of ``classes.txt`` in ``root`` (one name per line), else the names in the training files in
    alphabetical order. Objects that are marked as difficult count as crowds: they are not trained on, and it is no
    mistake to find or to miss them. Category ids run from 1.
    """
    read = {split: [objects_of(file, bad[split]) for file in paths] for split, paths in files.items()}
    listing = root / "classes.txt"
    if listing.is_file():
        classes = tuple(lines_of(listing))
    else:
        classes = tuple(sorted({name for objects in read["train"] for name, _ in objects}))
    label_of = {name: label for label, name in enumerate(classes, start=1)}

    def split_of(split: str) -> DetectionSet:
        boxes: dict[Path, list[Box]] = {}
        for path, objects in zip(files[split], read[split], strict=True):
            file = image_of(path, root)
            if file is None:
                bad[split].annotation(f"the image of {path} is missing")
            else:
                boxes[file] = [one._replace(label=label_of.get(name, 0)) for name, one in objects]
        images = images_from(boxes, lambda file, _: boxes[file], len(classes), bad[split])
        return DetectionSet(images, classes, tuple(range(1, 1 + len(classes))))

    return {split: split_of(split) for split in files}


def image_of(annotation: Path, root: Path) -> Path | None:
    """The image with the name of the XML file, in ``JPEGImages`` or beside it; None if it is missing."""
    folder = root / "JPEGImages" if annotation.parent.name == "Annotations" else annotation.parent
    candidates = (folder / f"{annotation.stem}{ending}" for ending in (*EXTENSIONS, *map(str.upper, EXTENSIONS)))
    return next((path for path in candidates if path.is_file()), None)


def objects_of(path: Path, bad: BadItems) -> Objects:
    """The objects of one XML file; VOC counts pixels from 1, and the last one is part of the box."""
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # no annotation needs one, and it can grow without bound
            raise ValueError("it defines entities")
        tree = ElementTree.fromstring(content)
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        bad.annotation(f"cannot read {path} ({first_line(error)})")
        return []
    found: Objects = []
    for number, item in enumerate(tree.iter("object"), start=1):
        where = f"object {number} of {path}"
        try:
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            bad.annotation(f"{where} has no bndbox of four numbers")
            continue
        box = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        found.append(((item.findtext("name") or "").strip(), Box(0, box, where, difficult)))
    return found
