from __future__ import annotations

import itertools

import numpy as np
import torch
from PIL import Image

from mixskd.transfer.drawing import coloured_mask, draw_boxes, draw_classes, in_lab, mask_palette, palette, scale_of

GREY = (128, 128, 128)


def distances(colours: list[tuple[int, int, int]]) -> list[float]:
    """Of each pair, in CIELAB."""
    lab = in_lab(np.array([colours], dtype=np.uint8))
    return [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2)]


def test_colours_are_far_apart() -> None:
    # 2.3 is the smallest difference that a person sees; sky and car, both red before, were 3 apart.
    assert min(distances(palette(21))) > 20
    assert min(distances(palette(80))) > 9
    assert min(distances([*palette(182), (0, 0, 0), (255, 255, 255), GREY])) > 6
    assert palette(182)[:80] == palette(80)


def test_background_has_no_colour() -> None:
    names = ("background", "sky", "car")
    assert mask_palette(names)[:3] == [(0, 0, 0), *palette(3)[:2]]
    image = Image.new("RGB", (90, 50), GREY)
    classes = torch.zeros(50, 90, dtype=torch.int64)
    classes[:, 30:60], classes[:, 60:] = 2, 255
    drawn = np.asarray(draw_classes(image, classes, names))[:50]
    assert (drawn[:, :30] == GREY).all()
    assert (drawn[:, 60:] == GREY).all()
    expected = np.array(GREY) + (np.array(palette(2)[1]) - np.array(GREY)) * (150 / 255)
    assert np.abs(drawn[:, 30:60] - expected).max() <= 1


def test_mask_keeps_class_indices_and_has_a_palette() -> None:
    classes = torch.tensor([[0, 1], [2, 255]])
    mask = coloured_mask(classes, ("a", "b", "c"))
    assert mask.mode == "P"
    assert np.asarray(mask).tolist() == classes.tolist()
    assert np.asarray(mask.convert("RGB")).reshape(4, 3).tolist() == [*map(list, palette(3)), [255] * 3]


def test_legend_names_the_classes_that_are_shown() -> None:
    names = tuple(f"a class of name {k}" for k in range(6))
    few = draw_classes(Image.new("RGB", (300, 200)), torch.zeros(200, 300), names)
    many = draw_classes(Image.new("RGB", (300, 200)), torch.arange(200)[:, None].expand(200, 300) % 6, names)
    assert few.width == many.width == 300
    assert 200 < few.height < many.height
    squares = {tuple(pixel) for pixel in np.asarray(many)[200:].reshape(-1, 3).tolist()}
    assert set(palette(6)) <= squares
    nothing = draw_classes(Image.new("RGB", (300, 200)), torch.full((200, 300), 255), names)
    assert nothing.size == (300, 200)


def test_labels_grow_with_the_image_and_stay_inside() -> None:
    assert [scale_of(Image.new("L", size)) for size in ((90, 50), (640, 480), (2000, 1500))] == [12, 14, 43]
    image = Image.new("RGB", (640, 480), GREY)
    boxes = torch.tensor([[600.0, 2, 639, 60], [0, 470, 30, 480]])
    drawn = np.asarray(draw_boxes(image, boxes, [1, 2], ["a long name 0.99", "b\x1b[2J 0.50"], 2))
    assert drawn.shape == (480, 640, 3)
    label = (drawn == palette(2)[0]).all(-1)
    assert label[4, 540:639].mean() > 0.9  # a box at the border has its label moved to the left
    assert not (np.asarray(image) == 0).any()  # the image that was given is not changed
