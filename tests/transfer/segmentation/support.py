"""A tiny segmentation data set of folders, and a small backbone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write(root: Path, size: tuple[int, int] = (40, 32), images: int = 4) -> Path:
    """Three classes (a sky, a ground, a box) and value 9 for pixels that do not count; width x height ``size``."""
    width, height = size
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[height // 2 :] = 1
            mask[4 + 3 * i : 16 + 3 * i, 5 + 4 * i : 17 + 4 * i] = 2
            pixels = np.array([[90, 140, 230], [60, 150, 60], [220, 40, 40]], dtype=np.uint8)[mask]
            mask[0] = 9
            Image.fromarray(mask).save(root / "masks" / split / f"{i}.png")
            Image.fromarray(pixels).save(root / "images" / split / f"{i}.png")
    (root / "meta.json").write_text(json.dumps({"classes": ["sky", "ground", "box"], "ignore_index": 9}))
    return root
