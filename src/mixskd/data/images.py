"""Decoding image files of any usual mode to RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mixskd.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


def decode_image(path: str | Path, content: bytes | None = None, enough: int | None = None) -> Image.Image:
    """The image as 8-bit RGB, upright by its EXIF tag: grey, palette, CMYK; transparency over white; 16 bits scaled.

    With ``content`` given it is decoded in place of the file. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if
    ``enough`` pixels of height and width are left, which saves most of the time of a large photograph. Raises UserError
    naming a file that is missing or cannot be read as an image.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            if enough is not None:
                image.draft(image.mode, (enough, enough))
            image.load()
            return to_rgb(upright(image))
    except FileNotFoundError:
        raise UserError(f"no image at {path}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}); repair or remove it, or --skip-bad-images") from None


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned as its EXIF data say; as it is if they are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow reads and rewrites all of the tags for it, and has an error of its own for each
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
