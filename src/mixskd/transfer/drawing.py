"""Boxes and masks drawn on images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks


def draw_boxes(image: Image.Image, detection: dict[str, Tensor], classes: Sequence[str], threshold: float) -> Tensor:
    """``image`` as a uint8 tensor with the boxes whose score is at least ``threshold``."""
    shown = detection["scores"] >= threshold
    labels, scores = detection["labels"][shown].tolist(), detection["scores"][shown].tolist()
    texts = [f"{classes[label - 1]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_labelled(image, detection["boxes"][shown], labels, texts, len(classes))


def draw_labelled(
    image: Image.Image, boxes: Tensor, labels: Sequence[int], texts: Sequence[str] | None, classes: int
) -> Tensor:
    """``image`` as a uint8 tensor with ``boxes`` (``n x 4``) in the colours of their ``labels``, from 1 on."""
    picture = F.pil_to_tensor(image)
    if not len(boxes):
        return picture
    colours = [palette(classes)[label - 1] for label in labels]
    return draw_bounding_boxes(picture, boxes, None if texts is None else list(texts), colors=colours, width=2)


def draw_classes(image: Image.Image, classes: Tensor, count: int) -> Tensor:
    """``image`` as a uint8 tensor under the colours of its ``classes`` (``H x W``)."""
    masks = torch.stack([classes == k for k in range(count)])
    return draw_segmentation_masks(F.pil_to_tensor(image), masks, alpha=0.5, colors=palette(count))


def palette(count: int) -> list[tuple[int, int, int]]:
    """``count`` colours of evenly spread hues."""
    hues = [((k * 0.618034) % 1, 0.85, 0.95) for k in range(count)]
    return [tuple(round(255 * x) for x in colorsys.hsv_to_rgb(*hue)) for hue in hues]  # type: ignore[misc]
