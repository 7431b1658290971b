"""Decoding image files of any usual mode to RGB."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mixskd.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


# Formats of the extensions above. Pillow would open many more, one of which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MOST_PIXELS = 178_956_970  # Pillow's own bound
LONGEST_SIDE = 100  # times the shorter one, which a resize keeps
ADVICE = "; repair or remove it, or --skip-bad-images"


def decode_image(path: str | Path, content: bytes | None = None, enough: int | None = None) -> Image.Image:
    """The image as 8-bit RGB, turned upright by its EXIF tag, transparency over white, 16 bits scaled to 8.

    ``content``, if given, is decoded in place of the file. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that
    leaves ``enough`` pixels of height and width, which saves most of the time for a large photograph. Raises UserError
    for a file that is missing, a pipe or a device, too large, or no image of :data:`FORMATS`.
    """
    with _loaded(path, content, enough) as image:
        return to_rgb(upright(image))


def check_image(path: str | Path, content: bytes | None = None) -> None:
    """Raises UserError as :func:`decode_image` would, at a fraction of its cost for a JPEG."""
    with _loaded(path, content, 8):  # the lowest scale finds truncated files
        pass


@contextmanager
def _loaded(path: str | Path, content: bytes | None, enough: int | None) -> Iterator[Image.Image]:
    """The image in ``path`` or ``content``, decoded. Raises UserError if that fails."""
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise ValueError("it is not a regular file")
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            _check_size(*image.size)
            if enough is not None:
                image.draft(image.mode, (enough, enough))
            image.load()
            yield image
    except FileNotFoundError:
        raise UserError(f"no image at {path}") from None
    except UserError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise any kind of error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}){ADVICE}") from None


def _check_size(width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < 1 or width * height > MOST_PIXELS or long > LONGEST_SIDE * short:
        raise ValueError(
            f"{width} x {height} pixels; an image has up to {MOST_PIXELS:,}, and sides up to {LONGEST_SIDE}:1"
        )


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned by its EXIF orientation; unchanged if its EXIF data are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow rewrites all tags, and raises many kinds of errors for damaged ones
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` of any mode as RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, or wider: PIL's own conversion would clip it
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
