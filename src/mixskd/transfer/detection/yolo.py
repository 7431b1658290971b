"""Boxes in the format of YOLO: one text file per image, and a YAML file that names classes and folders."""

from functools import partial
from pathlib import Path

from mixskd.config import read_yaml
from mixskd.data.images import EXTENSIONS
from mixskd.errors import UserError
from mixskd.transfer.detection.data import Box, DetectionSet, images_from
from mixskd.transfer.source_files import BadItems, lines_of


def find_yaml(root: Path) -> Path | None:
    """The YAML file of a YOLO data set at ``root`` (a folder, or that file itself), or None."""
    found = [root] if root.suffix in (".yaml", ".yml") else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    return next((path for path in found if path.is_file() and {"train", "names"} <= read_yaml(path).keys()), None)


def yolo_splits(listing: Path, bad: dict[str, BadItems]) -> dict[str, DetectionSet]:
    """The splits of the YOLO data set that the YAML file ``listing`` describes; ``bad`` counts for each split.

    The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``: lines of a class index and either x and y of
    the centre, width and height, or the corners of a polygon, all as fractions of the image. An image without such a
    file has no objects. Category ids are the class indices. Raises UserError for files that cannot be used.
    """
    content = read_yaml(listing)
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise UserError(f"'names' in {listing} must be a list of classes, or give each index from 0 on a name")
    classes = tuple(str(names[index]) for index in range(len(names)))
    base = listing.parent / str(content.get("path") or "")
    base = base if base.is_dir() else listing.parent
    splits = {}
    for split in ("train", "val", "test"):
        if not content.get(split):
            continue
        entries = content[split] if isinstance(content[split], list) else [content[split]]
        files = [file for entry in entries for file in image_files(base, str(entry), listing)]
        images = images_from(files, partial(boxes, bad=bad[split]), len(classes), bad[split])
        splits[split] = DetectionSet(images, classes, tuple(range(len(classes))))
    return splits


def image_files(base: Path, entry: str, listing: Path) -> list[Path]:
    """The images of a folder, or of a text file with one path per line. Raises UserError if there is neither."""
    # Files that Roboflow writes say ../train/images for the folder train/images beside them.
    path = next((p for p in (base / entry, base / entry.removeprefix("../")) if p.exists()), None)
    if path is None:
        raise UserError(f"{listing} names {entry}, which does not exist in {base}")
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
    return [path.parent / line for line in lines_of(path)]


def label_file(image: Path) -> Path:
    """Where the labels of ``image`` are: the last folder ``images`` of its path is ``labels``."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def boxes(image: Path, size: tuple[int, int], bad: BadItems) -> list[Box]:
    """The objects of ``image``, whose width and height are ``size``."""
    file, found = label_file(image), []
    for number, line in enumerate(lines_of(file) if file.is_file() else (), start=1):
        where = f"object {number} of {file}"
        try:
            index, *values = (float(word) for word in line.split())
        except ValueError:
            bad.annotation(f"{where} does not hold numbers only")
            continue
        if not index.is_integer() or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
            bad.annotation(f"{where} is not a class index with a box (4 numbers) or a polygon (6 or more)")
            continue
        if len(values) == 4:
            x, y, w, h = values  # x and y of the centre
            left, top = x - w / 2, y - h / 2
        else:
            left, top = min(values[::2]), min(values[1::2])
            w, h = max(values[::2]) - left, max(values[1::2]) - top
        box = (left * size[0], top * size[1], w * size[0], h * size[1])
        found.append(Box(int(index) + 1, box, where))
    return found
