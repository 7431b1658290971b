"""Boxes in COCO's format."""

import json
import os
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw

from mixskd.errors import UserError, first_line
from mixskd.transfer.detection.data import AnnotatedImage, Box, DetectionSet, annotated_image
from mixskd.transfer.source_files import BadItems

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, Meta(ge=1, le=1_000_000)]
Row = TypeVar("Row")


class Listing(msgspec.Struct):
    """The parts of a COCO file that are used; each row is decoded by itself, so that a bad one can be left out."""

    images: list[Raw]
    categories: list[Raw]
    annotations: list[Raw] = []


class Category(msgspec.Struct):
    id: Id
    name: Annotated[str, Meta(min_length=1, max_length=4096)]


class ImageRow(msgspec.Struct):
    id: Id
    file_name: str
    width: Side
    height: Side


class Annotation(msgspec.Struct):
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    id: Any = None
    iscrowd: int | bool | None = 0
    area: Annotated[float, Meta(ge=0, le=1e12)] | None = None


def load_coco(listing: Path, folder: Path, bad: BadItems) -> DetectionSet:
    """The images of the COCO file ``listing``, whose files are in ``folder``; ``bad`` counts what is left out.

    Any categories are accepted; their ids need not be consecutive. Raises UserError, naming the file, for a file or
    categories that cannot be used.
    """
    content = read_listing(listing)
    categories = []
    for number, raw in enumerate(content.categories):
        category = row_of(Category, raw)
        if isinstance(category, str):
            raise UserError(f"category {number} of {listing} cannot be used: {category}")
        categories.append(category)
    categories.sort(key=lambda category: category.id)
    if not categories:
        raise UserError(f"{listing} names no category")
    ids = tuple(category.id for category in categories)
    label_of = {category_id: label for label, category_id in enumerate(ids, start=1)}
    if len(label_of) < len(ids):
        raise UserError(f"{listing} gives two categories the same id")

    rows: dict[int, ImageRow] = {}
    left_out: set[int] = set()  # their annotations are left out with them, and not counted
    for number, raw in enumerate(content.images):
        row = row_of(ImageRow, raw)
        if isinstance(row, str):
            bad.annotation(f"image {number} of {listing} cannot be used: {row}")
        elif row.id in rows:
            raise UserError(f"{listing} gives two images the same id, {row.id}")
        elif problem := file_problem(row.file_name, folder):
            bad.annotation(f"the image {row.file_name} of {listing} {problem}")
            left_out.add(row.id)
        else:
            rows[row.id] = row

    objects: dict[int, list[Box]] = {image_id: [] for image_id in rows}
    for number, raw in enumerate(content.annotations):
        item = row_of(Annotation, raw)
        if isinstance(item, str):
            bad.annotation(f"annotation {number} of {listing} cannot be used: {item}")
        elif item.image_id in left_out:
            continue
        elif item.image_id not in rows:
            bad.annotation(f"annotation {item.id} of {listing} is for image {item.image_id}, which the file lacks")
        else:
            where = f"annotation {item.id} of {rows[item.image_id].file_name} in {listing}"
            if item.category_id not in label_of:
                bad.annotation(f"{where}: the category id {item.category_id} is not one of the {len(ids)} categories")
            else:
                box = Box(label_of[item.category_id], item.bbox, where, bool(item.iscrowd), item.area)
                objects[item.image_id].append(box)

    images: list[AnnotatedImage] = [
        annotated_image(row.id, folder / row.file_name, (row.width, row.height), objects[row.id], len(ids), bad)
        for row in rows.values()
    ]
    if not images:
        raise UserError(f"{listing} names no image that exists in {folder}")
    return DetectionSet(tuple(images), tuple(category.name for category in categories), ids)


def read_listing(path: Path) -> Listing:
    """The content of a COCO file. Raises UserError if it is no such file."""
    try:
        content = path.read_bytes()
        try:
            return msgspec.json.decode(content, type=Listing)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # Python writes NaN, which is not JSON: the rows that hold one are then refused
            content = msgspec.json.encode(json.loads(content, parse_constant=str))
            return msgspec.json.decode(content, type=Listing)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not a COCO file: {error}") from None
    except RecursionError:
        raise UserError(f"cannot read the annotations {path}: its lists are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the annotations {path}: {first_line(error)}") from None


def row_of(kind: type[Row], raw: Raw) -> Row | str:
    """One row of a COCO file as ``kind``, or what is wrong with it."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return str(error) or type(error).__name__


def file_problem(name: str, folder: Path) -> str | None:
    """Why the image ``name`` of a COCO file cannot be used, or None. It must be in ``folder`` or below it."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"is outside the image folder {folder}"
    return None if os.path.isfile(folder / name) else f"is missing: no file {folder / name}"
