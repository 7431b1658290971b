"""Reading image files with all their channels and bits, as arrays."""

import io
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from mixskd.runtime.packages import needed

LONGEST_SIDE = 100  # times the shorter one, which a resize keeps
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG = b"\x89PNG"


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ValueError for an image that is too large or too long."""
    short, long = sorted((width, height))
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels; max_pixels is {max_pixels:,}")
    if short < 1 or long > LONGEST_SIDE * short:
        raise ValueError(f"{width} x {height} pixels; an image has sides up to {LONGEST_SIDE}:1")


def read_values(path: str | Path, content: bytes | None, max_pixels: int) -> np.ndarray:
    """The image as it is stored, ``H x W x C`` in the file's own type.

    TIFF of any number of channels, interleaved, in planes or as pages, is read by tifffile (the extra ``tiff``), PNG of
    8 and 16 bits by torchvision, and other formats by Pillow. Raises ValueError or the readers' own errors.
    """
    content = Path(path).read_bytes() if content is None else content
    if content.startswith(TIFF):
        return _tiff(content, max_pixels)
    with Image.open(io.BytesIO(content)) as image:
        check_size(*image.size, max_pixels)
        if not content.startswith(PNG):
            values = np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr") else image)
            return values if values.ndim == 3 else values[..., None]
    with torch.no_grad():
        pixels = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    return pixels.permute(1, 2, 0).numpy()


def _tiff(content: bytes, max_pixels: int) -> np.ndarray:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is raised, too
    with needed("tifffile", "tiff").TiffFile(io.BytesIO(content)) as file:
        series = file.series[0]
        sides = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
        axes = "".join(axis for axis, _ in sides)
        if (axes.count("Y"), axes.count("X")) != (1, 1) or len(axes) > 3:
            raise ValueError(f"it has the axes {series.axes}; an image has height, width and channels")
        check_size(dict(sides)["X"], dict(sides)["Y"], max_pixels)
        values: np.ndarray = series.asarray().reshape([n for _, n in sides])
    channels = axes.replace("Y", "").replace("X", "")
    values = values.transpose([axes.index(axis) for axis in f"YX{channels}"])
    return values if channels else values[..., None]
