"""A trained detector or segmentation network used on images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from mixskd.data.images import decode_image
from mixskd.runtime.files import write_text
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.evaluation import coco_results, in_file_pixels
from mixskd.transfer.detection.loading import Sample, Sizes, padded
from mixskd.transfer.detection.loading import augmentation as detection_augmentation
from mixskd.transfer.drawing import draw_boxes, draw_classes
from mixskd.transfer.network_file import About, load_network
from mixskd.transfer.segmentation.loading import normalisation


@torch.inference_mode()
def predict(
    path: str | Path, images: Sequence[str | Path], out: str | Path, *, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Draw boxes or masks on ``images`` and write them to the folder ``out``, with ``predictions.json`` beside them.

    The JSON is a list in COCO's results format, with ``file_name`` added: boxes with their scores, or a mask
    (uncompressed RLE) for each class that was found. An image's id is its file's name if that is a number, else its
    place in ``images`` from 1 on. Boxes of a score below ``threshold`` are written, but not drawn. Raises UserError
    naming a file that cannot be read.
    """
    model, about = load_network(path)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for place, file in enumerate(map(Path, images), start=1):
        image = decode_image(file)
        image_id = int(file.stem) if file.stem.isdigit() else place
        if isinstance(about.config, DetectorConfig):
            detection = detect(model, about, image)
            found = coco_results(detection, image_id, about.category_ids or range(1, 1 + len(about.classes)))
            drawn = draw_boxes(image, detection, about.classes, threshold)
        else:
            classes = segment(model, about, image)
            found = mask_results(classes, image_id)
            drawn = draw_classes(image, classes, len(about.classes))
            Image.fromarray(classes.numpy().astype(np.uint8)).save(folder / f"{file.stem}_mask.png")
        F.to_pil_image(drawn).save(folder / f"{file.stem}.png")
        entries += [{**entry, "file_name": file.name} for entry in found]
    write_text(folder / "predictions.json", json.dumps(entries) + "\n")
    return entries


def detect(model: nn.Module, about: About, image: Image.Image) -> dict[str, Tensor]:
    """``boxes`` in the pixels of ``image``, ``scores`` and ``labels``, the best first."""
    config = about.config
    transform = detection_augmentation(Sizes(config.short, config.long), about.mean, about.std, train=False)
    one = transform(image)
    batch, sizes = padded([Sample(one.as_subclass(Tensor), torch.zeros(0, 4), torch.zeros(0), 0)])
    return in_file_pixels(model(batch, sizes)[0], sizes[0], (image.height, image.width))


def segment(model: nn.Module, about: About, image: Image.Image) -> Tensor:
    """The class of each pixel of ``image``, ``H x W``."""
    transform = normalisation(about.mean, about.std, colours=about.config.colours)
    classes: Tensor = model(transform(F.to_image(image)).as_subclass(Tensor)[None]).argmax(1)[0]
    return classes


def mask_results(classes: Tensor, image_id: int) -> list[dict[str, Any]]:
    """An entry of COCO's results format for each class in ``classes`` (``H x W``); category ids are class indices."""
    return [
        {"image_id": image_id, "category_id": int(k), "segmentation": run_lengths((classes == k).numpy()), "score": 1.0}
        for k in classes.unique()
    ]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """A boolean mask ``H x W`` as COCO's uncompressed RLE: run lengths by columns, the first one of False."""
    flat = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat, prepend=0)) if len(flat) else np.zeros(0, dtype=np.int64)
    counts = np.diff(np.concatenate([[0], ends, [len(flat)]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}
