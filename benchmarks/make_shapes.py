"""Make a small data set of boxes in COCO's format: squares and discs of any colour on noise, none of which overlap.

``python benchmarks/make_shapes.py FOLDER``: 384 images to train on and 48 others to score, 96 pixels wide, with one to
four objects of 14 to 40 pixels. They show on a CPU whether a detector learns what can be learned, on images that it has
never seen. results/detect_shapes has a run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 96


def shapes(numbers: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """An image, and the class (1 square, 2 disc) and box x, y, width, height of each of its objects."""
    image = Image.fromarray(numbers.integers(90, 166, (SIZE, SIZE, 3), dtype=np.uint8))
    draw, found = ImageDraw.Draw(image), []
    taken = np.zeros((SIZE, SIZE), bool)
    for _ in range(numbers.integers(1, 5)):
        side = int(numbers.integers(14, 41))
        x, y = (int(start) for start in numbers.integers(0, SIZE - side, 2))
        if taken[y : y + side, x : x + side].any():
            continue
        taken[y : y + side, x : x + side] = True
        kind = int(numbers.integers(1, 3))
        colour = tuple(int(value) for value in numbers.choice([0, 255], 3))
        figure = draw.rectangle if kind == 1 else draw.ellipse
        figure((x, y, x + side - 1, y + side - 1), fill=colour)
        found.append((kind, [x, y, side, side]))
    return image, found


def main(folder: Path) -> None:
    """Write ``train.json``, ``val.json`` and their images."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 384), ("val", 48)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(count):
            image, found = shapes(numbers)
            image.save(folder / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": SIZE, "height": SIZE})
            annotations += [
                {"id": len(annotations) + i, "image_id": number, "category_id": kind, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
                for i, (kind, box) in enumerate(found)
            ]  # fmt: skip
        names = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
        listing = {"images": images, "annotations": annotations, "categories": names}
        (folder / f"{split}.json").write_text(json.dumps(listing))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
