"""A grid of images with a text above each."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mixskd.drawing.plots import styled

Cell = tuple[np.ndarray, str]
"""An image ``H x W x 3`` with values 0 to 1, and what is written above it."""


def cells(images: Tensor, texts: list[str], mean: tuple[float, ...], std: tuple[float, ...]) -> list[Cell]:
    """Normalised images ``B x C x H x W`` with their texts."""
    average, spread = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))
    return list(zip(map(shown, images.float().cpu() * spread + average), texts, strict=True))


def shown(image: Tensor) -> np.ndarray:
    """``C x H x W`` as ``H x W x 3`` with values 0 to 1: its first three channels, or its first one as grey."""
    image = image[:3] if len(image) > 2 else image[:1].expand(3, -1, -1)
    return image.clamp(0, 1).permute(1, 2, 0).numpy()


def picture(columns: dict[str, list[Cell]]) -> Figure:
    """``columns`` by their titles; a row of the picture is one image of the batch."""
    rows = len(next(iter(columns.values())))
    with styled():
        figure = Figure(figsize=(1.7 * len(columns), 1.9 * rows + 0.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, len(columns), squeeze=False)
        for column, (title, shown) in enumerate(columns.items()):
            for row, (image, text) in enumerate(shown):
                ax = grid[row, column]
                ax.imshow(image, interpolation="nearest")
                ax.set_axis_off()
                ax.set_title(f"{title}\n{text}" if row == 0 else text, fontsize=7)
    return figure


def rendered(columns: dict[str, list[Cell]]) -> np.ndarray:
    """The picture as uint8 ``H x W x 3``."""
    figure = picture(columns)
    with styled():
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
