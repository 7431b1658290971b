"""Images of a trained detector's or segmentation network's data: what is annotated beside what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mixskd.data.images import decode_image
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.drawing import draw_classes, draw_labelled
from mixskd.transfer.evaluating import data_of
from mixskd.transfer.network_file import load_network
from mixskd.transfer.predicting import detect, segment


class Example(NamedTuple):
    """One image ``file`` with its annotation, and with what the network finds."""

    file: Path
    annotated: Image.Image
    found: Image.Image


@torch.inference_mode()
def examples(path: str | Path, split: str, count: int, *, threshold: float = 0.5) -> list[Example]:
    """``count`` images of ``split``, evenly spread over it, of the run at ``path``, with boxes or masks drawn.

    Boxes of a score below ``threshold`` are not drawn, and crowds are. Raises UserError if weights or data cannot be
    read, and KeyError without such a split.
    """
    model, about = load_network(path)
    detector = isinstance(about.config, DetectorConfig)
    settings: dict[str, Any] = {"skip_bad_annotations": True} if detector else {"check": False}
    images = data_of(path, about, **settings).annotated[split]
    places = sorted({round(i * (len(images) - 1) / max(count - 1, 1)) for i in range(min(count, len(images)))})
    made = []
    for place in places:
        if detector:
            one = images.images[place]
            file = one.file
            image = decode_image(file)
            truth = draw_labelled(image, one.boxes, one.labels.tolist(), None, len(about.classes))
            boxes = detect(model, about, image)
            shown = boxes["scores"] >= threshold
            labels = boxes["labels"][shown].tolist()
            found = draw_labelled(image, boxes["boxes"][shown], labels, None, len(about.classes))
        else:
            file = images.images[place]
            image = decode_image(file)
            mask = torch.from_numpy(np.array(images.read_mask(place)))
            truth = draw_classes(image, mask, len(about.classes))
            found = draw_classes(image, segment(model, about, image), len(about.classes))
        made.append(Example(file, picture(truth), picture(found)))
    return made


def picture(drawn: Tensor) -> Image.Image:
    """A uint8 tensor ``3 x H x W`` as an image."""
    image: Image.Image = F.to_pil_image(drawn)
    return image
