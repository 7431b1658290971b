"""Boxes and masks drawn on images, in distinct colours and with labels of a readable size."""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont
from torch import Tensor

from mixskd.errors.text import visible

Colour = tuple[int, int, int]
BACKGROUND = "background"  # a class of this name is not drawn
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def draw_boxes(
    image: Image.Image, boxes: Tensor, labels: Sequence[int], texts: Sequence[str], count: int
) -> Image.Image:
    """A copy of ``image`` with ``boxes`` (``n x 4``, corners), each in the colour of its label, with its text.

    ``labels`` are from 1 to ``count``, the number of classes. Later boxes are drawn below earlier ones.
    """
    drawn = image.copy()
    pen, font, unit = ImageDraw.Draw(drawn), font_for(image), scale_of(image)
    colours = palette(count)
    corners = boxes.tolist()
    for (x1, y1, x2, y2), label in reversed([*zip(corners, labels, strict=True)]):
        pen.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colours[label - 1], width=max(unit // 5, 2))
    for (x1, y1, _, _), label, text in reversed([*zip(corners, labels, texts, strict=True)]):
        left, top, right, bottom = pen.textbbox((0, 0), visible(text), font=font)
        width, height, margin = right - left, bottom - top, unit // 6
        x = max(min(x1, image.width - width - 2 * margin), 0)
        y = y1 - height - 2 * margin
        y = y if y >= 0 else min(y1, image.height - height - 2 * margin)
        colour = colours[label - 1]
        pen.rectangle((x, y, x + width + 2 * margin, y + height + 2 * margin), fill=colour)
        pen.text((x + margin - left, y + margin - top), visible(text), fill=ink_on(colour), font=font)
    return drawn


def draw_classes(image: Image.Image, classes: Tensor, names: Sequence[str]) -> Image.Image:
    """``image`` under the colours of its ``classes`` (``H x W``), with a legend; 255 is left as it is."""
    mask = coloured_mask(classes, names)
    values = np.asarray(mask)
    shown = [k for k in np.unique(values).tolist() if k < len(names) and names[k].lower() != BACKGROUND]
    covered = Image.fromarray(np.isin(values, shown).astype(np.uint8) * 150)
    drawn = Image.composite(mask.convert("RGB"), image, covered)
    return with_legend(drawn, [(names[k], mask_palette(names)[k]) for k in shown])


def coloured_mask(classes: Tensor, names: Sequence[str]) -> Image.Image:
    """``classes`` (``H x W``, values 0 to 255) as an image with a palette: each pixel's value is its class index."""
    mask = Image.fromarray(classes.cpu().numpy().astype(np.uint8))
    mask.putpalette([part for colour in mask_palette(names) for part in colour])
    return mask


def with_legend(image: Image.Image, entries: Sequence[tuple[str, Colour]]) -> Image.Image:
    """``image`` with a white strip below it that holds a square in the colour of each of ``entries`` and its name."""
    font, unit = font_for(image), scale_of(image)
    places, x, y = [], unit // 2, unit // 2
    for name, _ in entries:
        width = round(font.getlength(visible(name))) + 3 * unit
        if x > unit // 2 and x + width > image.width:
            x, y = unit // 2, y + 2 * unit
        places.append((x, y))
        x += width
    if not places:
        return image
    drawn = Image.new("RGB", (image.width, image.height + y + 2 * unit), "white")
    drawn.paste(image)
    pen = ImageDraw.Draw(drawn)
    for (x, y), (name, colour) in zip(places, entries, strict=True):
        top = image.height + y
        pen.rectangle((x, top, x + unit, top + unit), fill=colour, outline="black")
        pen.text((x + 1.5 * unit, top + unit / 2), visible(name), fill="black", font=font, anchor="lm")
    return drawn


def scale_of(image: Image.Image) -> int:
    """The height of a line of text on ``image`` in pixels: 12 or more, and a fortieth of the geometric mean side."""
    return max(12, round((image.width * image.height) ** 0.5 / 40))


def font_for(image: Image.Image) -> ImageFont.FreeTypeFont:
    """A font whose size suits ``image``."""
    return ImageFont.truetype(FONT, scale_of(image))


def ink_on(colour: Colour) -> str:
    """Black or white, whichever is easier to read on ``colour``."""
    red, green, blue = colour
    return "black" if 299 * red + 587 * green + 114 * blue > 128_000 else "white"


def mask_palette(names: Sequence[str]) -> list[Colour]:
    """256 colours for pixel values: one for each class, black for a background, and white beyond the classes."""
    free = iter(palette(max(len(names), 1)))
    colours = [(0, 0, 0) if name.lower() == BACKGROUND else next(free) for name in names]
    return [*colours, *[(255, 255, 255)] * (256 - len(colours))]


@functools.cache
def palette(count: int) -> list[Colour]:
    """``count`` colours, each as far as possible in CIELAB from those before it and from black, white and grey."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, 3)
    fixed = np.array([[[0, 0, 0], [255, 255, 255], [128, 128, 128]]], dtype=np.uint8)
    points, anchors = in_lab(grid), in_lab(fixed)
    near = np.linalg.norm(points[:, None] - anchors[None], axis=-1).min(1)
    near[(points[:, 0] < 35) | (points[:, 0] > 88)] = 0  # too dark or too light on a photograph
    colours = []
    for _ in range(count):
        best = int(near.argmax())
        colours.append(tuple(grid[0, best].tolist()))
        near = np.minimum(near, np.linalg.norm(points - points[best], axis=-1))
    return colours


def in_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB ``1 x n x 3`` (uint8) as CIELAB ``n x 3``, L from 0 to 100."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(Image.fromarray(colours), to_lab)
    assert converted is not None
    lab = np.asarray(converted).astype(np.uint8)
    return np.concatenate([lab[0, :, :1] * (100 / 255), lab[0, :, 1:].view(np.int8)], axis=1, dtype=np.float64)
