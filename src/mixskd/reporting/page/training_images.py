"""What the networks of finished runs saw: augmented images, views, partners and mixes, where the data can be read."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from mixskd.config import to_dict
from mixskd.drawing.picture import Cell
from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence
from mixskd.reporting.page import elements as pieces
from mixskd.reporting.page.mistakes import data_address
from mixskd.reporting.readable_data import Readable
from mixskd.reporting.repeated import Repeated
from mixskd.reporting.show_data import seen

IMAGES = 3  # rows of a setting's picture
MOST_SEEN = 12  # settings with a picture


def seen_section(evidence: Evidence, readable: Readable) -> str:
    """A folded picture for each setting that shows other images than those before it, and a note on the others."""
    parts: list[str] = []
    shown: set[str] = set()
    without: list[str] = []
    for line in evidence.of_kind(None):
        key = _what_is_seen(line)
        if key in shown or len(parts) == MOST_SEEN:
            continue
        columns = _columns(line, readable)
        if columns is None:
            without.append(line.label)
            continue
        shown.add(key)
        parts.append(pieces.folded(line.label, _picture(columns)))
    remark = ""
    if without:
        names = ", ".join(without[:MOST_SEEN]) + (" and others" if len(without) > MOST_SEEN else "")
        remark = pieces.note(f"Without a picture, since the data cannot be read from here: {names}.")
    if not parts:
        return remark
    about = (
        "Training images as they are stored and as they are augmented, then the views, partners and mixes that the "
        "method asks for, with the share of each label. They are like those of the runs, not the very same. Settings "
        f"that show the same are drawn once, and at most {MOST_SEEN}."
    )
    return pieces.paragraph(about) + "".join(parts) + remark


def _what_is_seen(line: Repeated) -> str:
    experiment = to_dict(line.experiment)
    return json.dumps([experiment["data"], experiment["method"]], sort_keys=True, default=str)


def _columns(line: Repeated, readable: Readable) -> dict[str, list[Cell]] | None:
    """The columns of the picture, or None if the data cannot be read, or no longer fit the method."""
    data = readable.bundle(line.experiment.data)
    if data is None:
        return None
    try:
        return seen(line.experiment, data, min(IMAGES, len(data.train)))
    except (UserError, OSError, ValueError):
        return None


def _picture(columns: dict[str, list[Cell]]) -> str:
    head = "".join(f'<th scope="col">{pieces.text(title)}</th>' for title in columns)
    rows = zip(*columns.values(), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(*cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table class="seen"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(image: np.ndarray, caption: str) -> str:
    pixels = image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)
    lines = "<br>".join(map(pieces.text, caption.splitlines()))
    return f'<img src="{data_address(Image.fromarray(pixels))}" alt="" loading="lazy"><br>{lines}'
