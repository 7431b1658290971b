"""The most confident mistakes with small pictures, where the images can still be read."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixskd.config import DataConfig
from mixskd.data.images import decode_image
from mixskd.errors import UserError
from mixskd.report.evidence import Run
from mixskd.report.readable import Readable

EACH_RUN = 12
SIDE = 112  # pixels of a picture


class Pictures:
    """Reads the images that the suites name, at most ``most`` of them; arrays are read once for all runs."""

    def __init__(self, readable: Readable, most: int = 240) -> None:
        self.left, self.readable = most, readable

    def address(self, run: Run, split: str, entry: Mapping[str, Any]) -> str | None:
        """A ``data:`` address of the picture of an ``entry`` of the suite ``errors``; None if it cannot be read."""
        if self.left <= 0:
            return None
        try:
            image = self._read(run.result.experiment.data, split, entry)
        except (UserError, OSError, IndexError, KeyError):
            return None  # moved or removed since: the table shows the mistake without it
        if image is None:
            return None
        self.left -= 1
        return data_address(image)

    def _read(self, data: DataConfig, split: str, entry: Mapping[str, Any]) -> Image.Image | None:
        if entry.get("path"):
            path = Path(entry["path"])
            inside = Path(data.source) / path
            return decode_image(inside if not path.is_absolute() and inside.is_file() else path, enough=SIDE)
        if data.source != "digits" and not data.source.endswith(".npz"):
            return None
        bundle = self.readable.bundle(data)
        return None if bundle is None else Image.fromarray(np.asarray(bundle.splits[split].images[int(entry["index"])]))


def data_address(image: Image.Image, side: int = SIDE) -> str:
    """``image``, at most ``side`` px wide and high, as JPEG in a ``data:`` address."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
