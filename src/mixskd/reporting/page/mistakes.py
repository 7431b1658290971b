"""Most confident mistakes and likely wrong labels with small pictures, where the images can still be read."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixskd.artifacts.model_file import load_model
from mixskd.config import DataConfig
from mixskd.data.images import decode_image
from mixskd.errors import UserError
from mixskd.evaluation.gradcam import grad_cam
from mixskd.reporting.evidence import Evidence, Readable, Run
from mixskd.reporting.page.blocks import Block, Content, fold, table
from mixskd.reporting.tables.cells import Number, Table

EACH_RUN = 12
MOST_PICTURES = 240  # of a section
MOST_PAIRS = 10
SIDE = 112  # pixels of a picture
WITHOUT = (
    "Runs with a table in place of pictures: their images cannot be read from here, or the section has its "
    f"{MOST_PICTURES} pictures already."
)
EXPLAINED = (
    "The lower half of a picture is what the network sees, dark where it does not speak for the class that it named "
    "(Grad-CAM; Selvaraju et al., 2017)."
)
Entry = Mapping[str, Any]
"""An image in the result of the suite ``errors``: its index and path, two classes and their probabilities."""
Picture = Image.Image | np.ndarray | None


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
        shown = pictures.shown(run, result["split"], result["mistakes"], "called", explained=True)
        parts += fold(title, shown + table(pairs), open=not parts)
    return parts + ([Block("note", EXPLAINED)] if pictures.explained else []) + pictures.remark()


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
    """Reads at most ``most`` of the images that the suites name; arrays are read once for all runs."""

    def __init__(self, readable: Readable, most: int = MOST_PICTURES) -> None:
        self.left, self.readable, self.without, self.explained = most, readable, False, False

    def shown(
        self,
        run: Run,
        split: str,
        entries: Sequence[Entry],
        verb: str,
        *,
        ranked: bool = False,
        explained: bool = False,
    ) -> Content:
        """The first of ``entries`` with their pictures, or a table of them if none has one.

        ``verb`` is written between an image's label and its other class. ``ranked`` entries are numbered.
        ``explained`` pictures have a Grad-CAM map for the class that was predicted, where the run has its model file.
        """
        entries = entries[:EACH_RUN]
        images = [self.image(run, split, entry) for entry in entries]
        side = SIDE
        if explained and (panels := panels_of(run, images, entries)):
            images, side, self.explained = panels, 2 * SIDE, True
        addresses = [None if x is None else data_address(x, side) for x in images]
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

    def image(self, run: Run, split: str, entry: Entry) -> Picture:
        """The picture of ``entry``; None if it cannot be read."""
        if self.left <= 0:
            return None
        try:
            image = self._read(run.result.experiment.data, split, entry)
        except (UserError, OSError, ValueError, IndexError, KeyError):
            return None  # moved or removed since
        self.left -= image is not None
        return image

    def _read(self, data: DataConfig, split: str, entry: Entry) -> Picture:
        if entry.get("path"):
            path = Path(entry["path"])
            inside = Path(data.source) / path
            return decode_image(inside if not path.is_absolute() and inside.is_file() else path, enough=2 * SIDE)
        bundle = self.readable.bundle(data)
        if bundle is None or not bundle.splits[split].in_memory:
            return None
        return np.asarray(bundle.splits[split].images[int(entry["index"])])


def panels_of(run: Run, images: Sequence[Picture], entries: Sequence[Entry]) -> list[Picture]:
    """``images`` as the network of ``run`` sees them, each above its Grad-CAM map for the class that it predicted.

    Empty if no image is here, or the run has no model file, or one without stages.
    """
    shown = [
        (i, x if isinstance(x, Image.Image) else Image.fromarray(x)) for i, x in enumerate(images) if x is not None
    ]
    if not shown:
        return []
    try:
        model = load_model(run.result.folder)
        classes = torch.tensor([model.classes.index(entries[i]["predicted"]) for i, _ in shown])
        crop, transform = model.preprocess.crop(), model.preprocess.transform()
        heat = grad_cam(model, torch.stack([transform(x) for _, x in shown]), classes).numpy()
    except (UserError, OSError, ValueError, RuntimeError):
        return []
    panels: list[Picture] = [None] * len(images)
    for (i, picture), light in zip(shown, heat, strict=True):
        seen = np.asarray(crop(picture), dtype=np.float32)
        panels[i] = np.concatenate([seen, seen * (0.15 + 0.85 * light[:, :, None])])
    return panels


def _name(entry: Entry) -> str:
    return str(entry.get("path") or f"image {entry['index']}")


def data_address(image: Image.Image | np.ndarray, side: int = SIDE) -> str:
    """``image`` (an array has values 0 to 255) as JPEG in a ``data:`` address, at most ``side`` px wide and high."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image.round().astype(np.uint8))
    image = image.convert("RGB")
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
