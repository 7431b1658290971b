"""Find the pairs of image and mask: Pascal VOC, ADE20K, COCO-Stuff, CamVid, or plain folders."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mixskd.data.images import EXTENSIONS, MAX_PIXELS
from mixskd.errors import UserError, unknown
from mixskd.transfer.segmentation.data import IGNORE, SegmentationSet, checked, label_table
from mixskd.transfer.source_files import BadItems, lines_of

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CAMVID = (
    "sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
# Values of COCO-Stuff's maps that no pixel has: objects whose names were planned, but never annotated.
STUFF_VALUES, STUFF_UNUSED = 182, (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
ADE_CLASSES = 150

Splits = dict[str, SegmentationSet]


def load_segmentation(
    root: str | Path, kind: str = "auto", *, skip_annotations: bool = False, skip_images: bool = False,
    verify: str = "cached", max_pixels: int = MAX_PIXELS, stuff_classes: int = 171,
) -> Splits:  # fmt: skip
    """Every split at ``root`` by name: ``train``, ``val`` and ``test``, where they exist.

    Args:
        root: the data set's folder.
        kind: one of ``SOURCES``, or ``auto`` to find out from the folders.
        skip_annotations: leave pairs with bad masks out and count them.
        skip_images: leave unreadable images out and count them.
        verify: ``data.verify``: whether every image is decoded once, and every mask. With ``off``, a bad one stops the
            run when it is reached.
        max_pixels: the largest width times height of an image.
        stuff_classes: of COCO-Stuff: the 171 that occur, or 182, which are its raw values, as in the released code.

    A ``test`` split without any mask is left out with a note. Raises UserError for a folder of no known layout, and for
    bad pairs, see :func:`checked`.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    if kind == "auto":
        kind = guess(root)
    if kind not in SOURCES:
        raise unknown("segmentation data", kind, SOURCES)
    splits = coco_stuff(root, stuff_classes) if kind == "coco_stuff" else SOURCES[kind](root)
    if "train" not in splits:
        raise UserError(f"{root} holds no training images of {kind}")
    if "test" in splits and not any(mask.is_file() for mask in splits["test"].masks):
        del splits["test"]
        note = f"the test split of {root} has no masks, so it gets no scores"
        splits["train"] = replace(splits["train"], notes=(*splits["train"].notes, note))
    splits = {name: replace(split, max_pixels=max_pixels) for name, split in splits.items()}
    if verify == "off":
        return splits
    return {name: checked(split, BadItems(skip_annotations, skip_images), verify) for name, split in splits.items()}


def guess(root: Path) -> str:
    """The kind of the data at ``root`` by its folders. Raises UserError for an unknown layout."""
    signs = {
        "voc": "ImageSets/Segmentation", "ade20k": "annotations/training", "coco_stuff": "stuffthingmaps",
        "camvid": "trainannot", "folders": "masks/train",
    }  # fmt: skip
    for kind, sign in signs.items():
        if (root / sign).is_dir():
            return kind
    if (root / "annotations" / "train2017").is_dir():
        return "coco_stuff"
    raise UserError(
        f"{root} holds no segmentation data that is known; give a folder with images/train and masks/train, "
        "or the folder of Pascal VOC (VOC2012), ADE20K, COCO-Stuff or CamVid"
    )


def voc(root: Path) -> Splits:
    """Pascal VOC 2012; ``train`` is the augmented set (SegmentationClassAug, train_aug.txt) if it exists."""
    lists = root / "ImageSets" / "Segmentation"
    augmented = root / "SegmentationClassAug"
    train = next((name for name in ("train_aug", "trainaug") if (lists / f"{name}.txt").is_file()), "train")
    splits = {}
    for split, name in (("train", train), ("val", "val")):
        if not (lists / f"{name}.txt").is_file():
            raise UserError(f"{root} is not a folder of Pascal VOC: it has no {lists / name}.txt")
        masks = augmented if name != "train" and split == "train" else root / "SegmentationClass"
        # The lists of the augmented set in circulation name files, such as /JPEGImages/2007_000032.jpg.
        stems = [Path(line.split()[0]).stem for line in lines_of(lists / f"{name}.txt")]
        splits[split] = SegmentationSet(
            tuple(root / "JPEGImages" / f"{stem}.jpg" for stem in stems),
            tuple(masks / f"{stem}.png" for stem in stems),
            VOC,
            label_table(len(VOC)),
        )
    if train == "train":
        note = "the augmented training set is missing (SegmentationClassAug, train_aug.txt): training on VOC's own"
        splits["train"] = replace(splits["train"], notes=(note,))
    return splits


def ade20k(root: Path) -> Splits:
    """ADE20K of the scene parsing challenge: 150 classes, value 0 is ignored."""
    names = tuple(f"class {i}" for i in range(1, ADE_CLASSES + 1))
    listing = root / "objectInfo150.txt"
    if listing.is_file():
        rows = [line.split("\t") for line in lines_of(listing)[1:]]
        if len(rows) == ADE_CLASSES:
            names = tuple(row[-1].strip() for row in rows)
    table = label_table(ADE_CLASSES, ignored=(0,), first=1)
    folders = {"train": "training", "val": "validation"}
    places = {split: (root / "images" / name, root / "annotations" / name) for split, name in folders.items()}
    return _splits(places, names, table)


def coco_stuff(root: Path, classes: int = 171) -> Splits:
    """COCO-Stuff: the maps of things and stuff (``stuffthingmaps`` or ``annotations``), raw values 0 to 181.

    With 171 classes the 11 values that never occur are left out; with 182 every value is a class, as in the released
    code, whose mean then has 11 zeros in it. Raises UserError for another number.
    """
    used = [value for value in range(STUFF_VALUES) if value not in STUFF_UNUSED]
    if classes not in (len(used), STUFF_VALUES):
        raise UserError(f"COCO-Stuff has {len(used)} classes that occur, or {STUFF_VALUES} raw values, not {classes}")
    if classes == STUFF_VALUES:
        used = [*range(STUFF_VALUES)]
    table = [-1] * 256
    for label, value in enumerate(used):
        table[value] = label
    table[IGNORE] = IGNORE
    names = _names(root / "labels.txt", [f"value {value}" for value in used], used)
    maps = root / "stuffthingmaps" if (root / "stuffthingmaps").is_dir() else root / "annotations"
    images = root / "images" if (root / "images").is_dir() else root
    places = {split: (images / f"{split}2017", maps / f"{split}2017") for split in ("train", "val")}
    return _splits(places, names, tuple(table), STUFF_VALUES)


def camvid(root: Path) -> Splits:
    """CamVid with 11 classes, as SegNet's authors distribute it (``train`` and ``trainannot``); value 11 is ignored."""
    places = {split: (root / split, root / f"{split}annot") for split in ("train", "val", "test")}
    return _splits(places, CAMVID, label_table(len(CAMVID), ignored=(len(CAMVID),)))


def folders(root: Path) -> Splits:
    """``images/SPLIT/NAME.*`` beside ``masks/SPLIT/NAME.png``.

    ``meta.json`` gives ``classes`` and, unless it is 255, ``ignore_index``; or ``classes.txt`` gives a name per line.
    """
    ignore, meta = IGNORE, root / "meta.json"
    if meta.is_file():
        try:
            values = json.loads(meta.read_text(encoding="utf-8"))
            names, ignore = tuple(str(name) for name in values["classes"]), int(values.get("ignore_index", IGNORE))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{meta} must be JSON with a list 'classes' and a number 'ignore_index'") from None
    elif (root / "classes.txt").is_file():
        names = tuple(lines_of(root / "classes.txt"))
    else:
        raise UserError(f"{root} does not name its classes; write one name per line to {root / 'classes.txt'}")
    if not 0 <= ignore <= IGNORE or ignore < len(names):
        raise UserError(f"ignore_index in {meta} is {ignore}; it must be from {len(names)} to {IGNORE}")
    if len(names) < 2:
        raise UserError(f"{root} names {len(names)} class; segmentation needs two or more")
    table = label_table(len(names), ignored={ignore, IGNORE})
    places = {split: (root / "images" / split, root / "masks" / split) for split in ("train", "val", "test")}
    return {split: _with_lone_masks(found, *places[split]) for split, found in _splits(places, names, table).items()}


def _splits(
    places: Mapping[str, tuple[Path, Path]], names: Sequence[str], table: tuple[int, ...], released: int | None = None
) -> Splits:
    """Each split whose first folder exists: the images there, and the masks of the same stems in the second folder."""
    splits = {}
    for split, (images, masks) in places.items():
        if images.is_dir():
            files = tuple(sorted(path for path in images.iterdir() if path.suffix.lower() in EXTENSIONS))
            found = tuple(masks / f"{file.stem}.png" for file in files)
            splits[split] = SegmentationSet(files, found, tuple(names), table, released)
    return splits


def _with_lone_masks(found: SegmentationSet, folder: Path, masks: Path) -> SegmentationSet:
    """``found`` with the masks that have no image, so that the check names the image that is missing."""
    ending = found.images[0].suffix if found.images else ".png"
    lone = sorted(set(masks.glob("*.png")) - set(found.masks))
    images = tuple(folder / f"{mask.stem}{ending}" for mask in lone)
    return replace(found, images=found.images + images, masks=found.masks + tuple(lone))


def _names(listing: Path, default: Sequence[str], used: Sequence[int]) -> tuple[str, ...]:
    """Class names from COCO-Stuff's ``labels.txt`` (``12: street sign``, ids from 1), else ``default``."""
    if not listing.is_file():
        return tuple(default)
    pairs = [line.partition(":") for line in lines_of(listing) if ":" in line]
    known = {number.strip(): name.strip() for number, _, name in pairs}
    return tuple(known.get(str(value + 1), text) for value, text in zip(used, default, strict=True))


SOURCES: dict[str, Callable[[Path], Splits]] = {
    "voc": voc,
    "ade20k": ade20k,
    "coco_stuff": coco_stuff,
    "camvid": camvid,
    "folders": folders,
}
