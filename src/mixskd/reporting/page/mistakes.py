"""Most confident mistakes and likely wrong labels with small pictures, where the images can still be read."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixskd.config import DataConfig
from mixskd.data.images import decode_image
from mixskd.drawing.picture import shown
from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence, Readable, Run
from mixskd.reporting.page.blocks import Block, Content, fold, table
from mixskd.reporting.page.grad_cam_picture import GradCamPicture
from mixskd.reporting.tables.cells import Number, Table

EACH_RUN = 12
MOST_PICTURES = 240  # of a section
MOST_PAIRS = 10
SIDE = 112  # pixels of a picture
WITHOUT = (
    "Runs with a table in place of pictures: their images cannot be read from here, or the section has its "
    f"{MOST_PICTURES} pictures already."
)
PLACES = (
    "Below each image: the places that speak for the class that it was called, the lightest ones most (Grad-CAM on the "
    "last map of the network)."
)
Entry = Mapping[str, Any]
"""An image in the result of the suite ``errors``: its index and path, two classes and their probabilities."""


def mistake_section(evidence: Evidence, readable: Readable) -> Content:
    """For each run its most confident mistakes and most confused classes; those of the first run are open."""
    pictures, parts = Pictures(readable), Content()
    for run, result in evidence.with_suite("errors"):
        pairs: Table = [
            {"class": p["label"], "called": p["predicted"], "images": Number(p["images"]),
             "% of the class": Number(p["share_of_label"], 1)}
            for p in result["pairs"][:MOST_PAIRS]
        ]  # fmt: skip
        title = (
            f"{run.label}: {result['number_of_mistakes']} mistakes in {result['images']} images of {result['split']}"
        )
        shown = pictures.shown(
            run, result["split"], result["mistakes"], "called", explain=GradCamPicture(run.result.folder)
        )
        parts += fold(title, shown + table(pairs), open=not parts)
    return [*([Block("text", PLACES)] if pictures.explained else []), *parts, *pictures.remark()]


def suspect_section(evidence: Evidence, readable: Readable) -> Content:
    """For each run the labels that are most likely wrong, ranked, and no more than a person can check."""
    pictures, parts = Pictures(readable), Content()
    for run, result in evidence.with_suite("errors"):
        if number := len(result["suspects"][:EACH_RUN]):
            title = f"{run.label}: the {number} labels of {result['split']} that are most likely wrong"
            shown = pictures.shown(run, result["split"], result["suspects"], "perhaps", ranked=True)
            parts += fold(title, shown, open=not parts)
    if not parts:
        return parts
    about = (
        "Images whose label gets an unusually small probability while another class gets a usual one, the largest "
        "difference first. A hard image looks the same to a classifier, so look at each before you change its label. "
        "evaluation/errors.json lists more."
    )
    return [Block("text", about), *parts, *pictures.remark()]


class Pictures:
    """Reads at most ``MOST_PICTURES`` of the images that the suites name; arrays are read once for all runs."""

    def __init__(self, readable: Readable) -> None:
        self.left, self.readable, self.without, self.explained = MOST_PICTURES, readable, False, False

    def shown(
        self, run: Run, split: str, entries: Sequence[Entry], verb: str, *, ranked: bool = False,
        explain: GradCamPicture | None = None,
    ) -> Content:  # fmt: skip
        """The first of ``entries`` with their pictures, or a table of them if none has one.

        ``verb`` is written between an image's label and its other class. ``ranked`` entries are numbered, and
        ``explain`` adds what speaks for the other class.
        """
        entries = entries[:EACH_RUN]
        addresses = [self.address(run, split, entry, explain) for entry in entries]
        if not any(addresses):
            self.without = self.without or bool(entries)
            return table([
                {"image": _name(e), "class": e["label"], "its probability (%)": Number(100 * e["label_probability"], 1),
                 verb: e["predicted"], "that probability (%)": Number(100 * e["predicted_probability"], 1)}
                for e in entries
            ])  # fmt: skip
        captions = [
            f"{f'{n}. ' * ranked}{e['label']} ({100 * e['label_probability']:.1f} %), {verb} {e['predicted']} "
            f"({100 * e['predicted_probability']:.1f} %); {_name(e)}"
            for n, e in enumerate(entries, start=1)
        ]
        return [Block("pictures", list(zip(addresses, captions, strict=True)))]

    def remark(self) -> Content:
        """Why some runs have no picture, if there are such."""
        return [Block("note", WITHOUT)] if self.without else []

    def address(self, run: Run, split: str, entry: Entry, explain: GradCamPicture | None = None) -> str | None:
        """The picture of ``entry`` as a ``data:`` address; None if it cannot be read."""
        if self.left <= 0:
            return None
        try:
            image = self._read(run.result.experiment.data, split, entry, SIDE if explain is None else None)
        except (UserError, OSError, ValueError, IndexError, KeyError):
            return None  # moved or removed since
        if image is None:
            return None
        self.left -= 1
        image = as_picture(image)
        if explain is None or (both := explain(image, entry["predicted"])) is None:
            return data_address(image)
        self.explained = True
        return data_address(both, height=2 * SIDE)

    def _read(self, data: DataConfig, split: str, entry: Entry, enough: int | None) -> Image.Image | np.ndarray | None:
        if entry.get("path"):
            path = Path(entry["path"])
            inside = Path(data.source) / path
            return decode_image(inside if not path.is_absolute() and inside.is_file() else path, enough=enough)
        bundle = self.readable.bundle(data)
        if bundle is None or not bundle.splits[split].in_memory:
            return None
        pixels = torch.from_numpy(
            np.asarray(bundle.splits[split].images[int(entry["index"])]).transpose(2, 0, 1).copy()
        )
        image = shown(pixels if pixels.is_floating_point() else pixels / 255)
        return Image.fromarray((255 * image).round().astype(np.uint8))


def _name(entry: Entry) -> str:
    return str(entry.get("path") or f"image {entry['index']}")


def as_picture(image: Image.Image | np.ndarray) -> Image.Image:
    """``image`` (an array has values 0 to 255) as RGB."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image.round().astype(np.uint8))
    return image.convert("RGB")


def data_address(image: Image.Image | np.ndarray, side: int = SIDE, height: int | None = None) -> str:
    """``image`` as JPEG in a ``data:`` address, at most ``side`` px wide, and as high or at most ``height`` px high."""
    image = as_picture(image)
    image.thumbnail((side, height or side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
