"""What the networks of finished runs saw: augmented images, views, partners and mixes, where the data can be read."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from mixskd.config import to_dict
from mixskd.drawing.picture import Cell
from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.page.blocks import Block, Content, fold
from mixskd.reporting.page.mistakes import data_address
from mixskd.reporting.readable_data import Readable
from mixskd.reporting.repeated import Repeated
from mixskd.reporting.show_data import batch_columns

IMAGES = 3  # rows of a setting's picture
MOST_SETTINGS = 12  # with a picture


def training_image_section(evidence: Evidence, readable: Readable) -> Content:
    """A folded picture for each setting that shows other images than those before it, and a note on the others."""
    parts, shown, without = Content(), set[str](), list[str]()
    for line in evidence.of_kind(None):
        experiment = to_dict(line.experiment)
        key = json.dumps([experiment["data"], experiment["method"]], sort_keys=True, default=str)
        if key in shown or len(parts) == MOST_SETTINGS:
            continue
        columns = _columns(line, readable)
        if columns is None:
            without.append(line.label)
            continue
        shown.add(key)
        pictures = {title: [(_address(image), text) for image, text in cells] for title, cells in columns.items()}
        parts += fold(line.label, [Block("batch", pictures)])
    if parts:
        about = (
            "Training images as they are stored and as they are augmented, then the views, partners and mixes that the "
            "method asks for, with the share of each label. They are like those of the runs, not the very same. "
            f"Settings that show the same are drawn once, and at most {MOST_SETTINGS}."
        )
        parts = [Block("text", about), *parts]
    if without:
        names = ", ".join(without[:MOST_SETTINGS]) + (" and others" if len(without) > MOST_SETTINGS else "")
        parts += [Block("note", f"Without a picture, since the data cannot be read from here: {names}.")]
    return parts


def _columns(line: Repeated, readable: Readable) -> dict[str, list[Cell]] | None:
    """The columns of the picture, or None if the data cannot be read, or no longer fit the method."""
    data = readable.bundle(line.experiment.data)
    if data is None:
        return None
    try:
        return batch_columns(line.experiment, data, min(IMAGES, len(data.train)))
    except (UserError, OSError, ValueError):
        return None


def _address(image: np.ndarray) -> str:
    return data_address(Image.fromarray(image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)))
