"""Images of a trained network's data: the annotation beside the prediction."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from mixskd.data.images import decode_image
from mixskd.transfer.evaluating import data_of
from mixskd.transfer.network_file import load_network


class Example(NamedTuple):
    """One image ``file`` with its annotation drawn, and with what the network finds."""

    file: Path
    annotated: Image.Image
    found: Image.Image


@torch.inference_mode()
def examples(path: str | Path, split: str, count: int, *, threshold: float = 0.5) -> list[Example]:
    """``count`` images of ``split``, evenly spread over it, of the run at ``path``, with boxes or masks drawn.

    Predicted boxes of a score below ``threshold`` are not drawn; annotated crowds are. Raises UserError if weights or
    data cannot be read, and KeyError without such a split.
    """
    model, about = load_network(path)
    pipeline = about.pipeline(skip_bad_annotations=True, check=False)
    images = data_of(path, about, pipeline).annotated[split]
    places = sorted({round(i * (len(images) - 1) / max(count - 1, 1)) for i in range(min(count, len(images)))})
    made = []
    for place in places:
        file = images.files[place]
        image = decode_image(file)
        (found,) = pipeline.find(model, [image])
        drawn = pipeline.draw(image, found, about.classes, threshold)
        made.append(Example(file, pipeline.draw_truth(images, place), drawn))
    return made
