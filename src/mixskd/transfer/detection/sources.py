"""Find the format of a folder of detection data (COCO, YOLO, Pascal VOC), and load its splits."""

import dataclasses
from pathlib import Path

from mixskd.data.images import MAX_PIXELS
from mixskd.errors import UserError
from mixskd.transfer.detection.coco import load_coco
from mixskd.transfer.detection.data import DetectionSet, readable
from mixskd.transfer.detection.voc import NAMES, find_voc, voc_splits
from mixskd.transfer.detection.yolo import find_yaml, yolo_splits
from mixskd.transfer.source_files import BadItems


def load_detection(
    root: str | Path,
    *,
    skip_annotations: bool = False,
    skip_images: bool = False,
    verify: str = "cached",
    max_pixels: int = MAX_PIXELS,
) -> dict[str, DetectionSet]:
    """Every split of the data set at ``root`` by name, in the format of COCO, YOLO or Pascal VOC.

    Args:
        root: a folder, or the YAML file of a YOLO data set.
        skip_annotations: leave bad annotations out and count them.
        skip_images: leave unreadable images out and count them.
        verify: ``data.verify``: whether every image is decoded once. With ``off``, a bad one stops the run when it is
            reached.
        max_pixels: the largest width times height of an image.

    A ``test`` split without annotations is left out with a note. Raises UserError for a folder of no known format, for
    a missing ``train``, for splits with other categories, and for bad items that are not skipped.
    """
    root = Path(root).expanduser()
    bad = {split: BadItems(skip_annotations, skip_images) for split in NAMES}
    if coco := find_coco(root):
        splits = {split: load_coco(listing, folder, bad[split]) for split, (listing, folder) in coco.items()}
    elif listing := find_yaml(root):
        splits = yolo_splits(listing, bad)
    elif "train" in (files := find_voc(root)):
        splits = voc_splits(root, files, bad)
    else:
        splits = {}
    if "train" not in splits:
        raise UserError(
            f"{root} holds no detection data: give a folder with train.json and train/ or with "
            "annotations/instances_train2017.json and train2017/ (COCO), with data.yaml (YOLO), "
            "or with Annotations/ and ImageSets/Main/ (Pascal VOC)"
        )
    if "test" in splits and not splits["test"].objects:
        del splits["test"]
        note = f"the test split of {root} has no annotations, so it gets no scores"
        splits["train"] = dataclasses.replace(splits["train"], notes=(note,))
    for split, found in splits.items():
        if (found.classes, found.category_ids) != (splits["train"].classes, splits["train"].category_ids):
            raise UserError(f"the splits train and {split} of {root} have other categories; they must be the same")
        images = found.images
        if verify != "off":
            images = tuple(readable(images, bad[split], verify, max_pixels))
        notes = (*found.notes, *bad[split].notes(coco[split][0].name if coco else split))
        splits[split] = dataclasses.replace(found, images=images, notes=notes, max_pixels=max_pixels)
    return splits


def find_coco(root: Path) -> dict[str, tuple[Path, Path]]:
    """``{split: (annotation file, image folder)}`` of COCO data at ``root``; empty for other data.

    Known are ``train.json`` beside ``train/``; COCO's own ``annotations/instances_train2017.json`` beside
    ``train2017/``; and Roboflow's ``train/_annotations.coco.json``. Raises UserError if an image folder is missing.
    """
    splits = {}
    for split, names in NAMES.items():
        for name in names:
            official = sorted(root.glob(f"annotations/instances_{name}*.json"))
            if (root / f"{name}.json").is_file():
                splits[split] = root / f"{name}.json", root / name
            elif official:
                splits[split] = official[-1], root / official[-1].stem.removeprefix("instances_")
            elif (root / name / "_annotations.coco.json").is_file():
                splits[split] = root / name / "_annotations.coco.json", root / name
    for listing, folder in splits.values():
        if not folder.is_dir():
            raise UserError(f"the images of {listing} must be in {folder}, which does not exist")
    return splits
