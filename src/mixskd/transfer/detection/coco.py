"""Detection data in COCO's format, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.errors import UserError
from mixskd.transfer.bad_annotations import BadItems

TOLERANCE = 1.0  # pixels: COCO's own boxes are rounded, and some end a fraction of a pixel outside


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects.

    ``boxes`` is ``n x 4`` (x1, y1, x2, y2 in pixels), ``labels`` ``n`` (1 to N; 0 is the background), ``crowd`` and
    ``area`` ``n``. An image without objects has n = 0.
    """

    id: int
    file: Path
    width: int
    height: int
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor


@dataclass(frozen=True)
class DetectionSet:
    """One split: its images, and the names and COCO ids of the classes; label k is ``classes[k - 1]``."""

    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def objects(self) -> int:
        """The number of annotated objects, crowds included."""
        return sum(len(image.labels) for image in self.images)

    def without_empty(self) -> DetectionSet:
        """The images that hold at least one object that is no crowd, as the paper trains on."""
        kept = tuple(image for image in self.images if not image.crowd.all())
        return DetectionSet(kept, self.classes, self.category_ids, self.notes)


def load_coco(listing: Path, folder: Path, *, skip_bad: bool = False) -> DetectionSet:
    """The images of the COCO file ``listing``, whose files lie in ``folder``.

    Any categories are accepted; their ids need not be consecutive. A box that reaches at most one pixel beyond its
    image is clipped. Raises UserError, naming the file, for a missing image, an unknown category or image id, a box
    outside its image or without area; with ``skip_bad`` such items are left out and counted in ``notes``.
    """
    content = _read(listing)
    bad = BadItems(skip_bad)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    if not categories:
        raise UserError(f"{listing} names no category")
    ids = tuple(int(category["id"]) for category in categories)
    label_of = {category_id: label for label, category_id in enumerate(ids, start=1)}
    if len(label_of) < len(ids):
        raise UserError(f"{listing} gives two categories the same id")

    objects: dict[int, list[Mapping[str, Any]]] = {int(image["id"]): [] for image in content["images"]}
    sizes = {int(image["id"]): (float(image["width"]), float(image["height"])) for image in content["images"]}
    if len(sizes) < len(content["images"]):
        raise UserError(f"{listing} gives two images the same id")
    names = {int(image["id"]): image["file_name"] for image in content["images"]}
    for item in content["annotations"]:
        image_id = int(item["image_id"])
        if image_id not in objects:
            bad.report(f"annotation {item.get('id')} of {listing} is for image {image_id}, which the file lacks")
        elif problem := _problem(item, label_of, *sizes[image_id]):
            bad.report(f"annotation {item.get('id')} of {names[image_id]} in {listing}: {problem}")
        else:
            objects[image_id].append(item)

    images = []
    for image in content["images"]:
        file = folder / image["file_name"]
        if not file.is_file():
            bad.report(f"the image {file} of {listing} is missing")
            continue
        images.append(_annotated(image, file, objects[int(image["id"])], label_of))
    if not images:
        raise UserError(f"{listing} names no image that exists in {folder}")
    classes = tuple(str(category["name"]) for category in categories)
    return DetectionSet(tuple(images), classes, ids, bad.notes(listing.name))


def find_splits(root: Path) -> dict[str, tuple[Path, Path]]:
    """``{split: (annotation file, image folder)}`` of a data set at ``root``.

    Two layouts are known: ``train.json`` beside ``train/``, and COCO's own, ``annotations/instances_train2017.json``
    beside ``train2017/``; the splits are ``train``, ``val`` and ``test``. Raises UserError if there is no ``train``.
    """
    splits = {}
    for split in ("train", "val", "test"):
        official = sorted(root.glob(f"annotations/instances_{split}*.json"))
        plain = root / f"{split}.json"
        if plain.is_file():
            splits[split] = plain, root / split
        elif official:
            splits[split] = official[-1], root / official[-1].stem.removeprefix("instances_")
    for listing, folder in splits.values():
        if not folder.is_dir():
            raise UserError(f"the images of {listing} must be in {folder}, which does not exist")
    if "train" not in splits:
        raise UserError(
            f"{root} holds no detection data: give a folder with train.json and train/, "
            "or with annotations/instances_train2017.json and train2017/"
        )
    return splits


def load_detection(root: str | Path, *, skip_bad: bool = False) -> dict[str, DetectionSet]:
    """Every split of the data set at ``root`` by name. Raises UserError if their categories differ, see load_coco."""
    splits = {
        name: load_coco(*paths, skip_bad=skip_bad) for name, paths in find_splits(Path(root).expanduser()).items()
    }
    train = splits["train"]
    for name, split in splits.items():
        if (split.classes, split.category_ids) != (train.classes, train.category_ids):
            raise UserError(f"the splits train and {name} of {root} have other categories; they must be the same")
    return splits


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the annotations {path}: {str(error).splitlines()[0]}") from None
    required: dict[str, Sequence[str]] = {
        "images": ("id", "file_name", "width", "height"),
        "categories": ("id", "name"),
        "annotations": ("image_id", "category_id", "bbox"),
    }
    for part, keys in required.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{path} is not a COCO file: it has no list {part!r}")
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or any(key not in row for key in keys):
                raise UserError(f"{path}: entry {number} of {part!r} must have {', '.join(keys)}")
    return content


def _problem(item: Mapping[str, Any], label_of: Mapping[int, int], width: float, height: float) -> str | None:
    """What is wrong with one annotation of an image of that size, or None."""
    if item["category_id"] not in label_of:
        return f"the category id {item['category_id']} is not one of the file's {len(label_of)} categories"
    box = item["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(x, int | float) for x in box):
        return f"the box {box} is not [x, y, width, height]"
    x, y, w, h = box
    if not (w > 0 and h > 0):
        return f"the box {box} has no area"
    if not (x >= -TOLERANCE and y >= -TOLERANCE and x + w <= width + TOLERANCE and y + h <= height + TOLERANCE):
        return f"the box {box} lies outside its image of {width:g} x {height:g} pixels"
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return f"the box {box} has no area within its image of {width:g} x {height:g} pixels"
    return None


def _annotated(
    image: Mapping[str, Any], file: Path, items: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]
) -> AnnotatedImage:
    width, height = int(image["width"]), int(image["height"])
    boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float32).reshape(-1, 4)
    areas = [item.get("area", item["bbox"][2] * item["bbox"][3]) for item in items]
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    return AnnotatedImage(
        id=int(image["id"]),
        file=file,
        width=width,
        height=height,
        boxes=boxes,
        labels=torch.tensor([label_of[item["category_id"]] for item in items], dtype=torch.int64),
        crowd=torch.tensor([bool(item.get("iscrowd", 0)) for item in items], dtype=torch.bool),
        area=torch.tensor(areas, dtype=torch.float32),
    )
