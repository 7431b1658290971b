"""Decoding image files: to grey or RGB of 8 bits, or with all their channels and bits."""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mixskd.config.data import MAX_PIXELS
from mixskd.data.preprocess import Preprocess
from mixskd.data.values import check_size, read_values
from mixskd.errors import UserError, first_line

# Images up to this limit are decoded; MAX_PIXELS or data.max_pixels says so, not Pillow's own warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


# Formats of the extensions above. Pillow would open many more, one of which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
TOO_LARGE = "more than 178,956,970 pixels, the most that Pillow decodes"
ADVICE = "; repair or remove it, or --skip-bad-images"


def decode_image(
    path: str | Path, content: bytes | None = None, enough: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The image as 8-bit RGB, turned upright by its EXIF tag, transparency over white, 16 bits scaled to 8.

    ``content``, if given, is decoded in place of the file. With ``enough`` given, a JPEG is decoded at 1/s of its size,
    where s is the largest of 1, 2, 4 and 8 with width // enough >= s and height // enough >= s. This saves most of the
    time and memory for a large photograph; ``Preprocess.enough`` says how much it changes the result. The header's
    width times height is compared with ``max_pixels`` before decoding. Raises UserError for a file that is missing, a
    pipe or a device, too large, or no image of :data:`FORMATS`.
    """
    with _opened(path, content, max_pixels) as image:
        _load(image, enough)
        return to_rgb(upright(image))


def open_image(
    path: str | Path, wanted: Preprocess, content: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image | Tensor:
    """The image for ``wanted.crop()``, and for augmentations of the size of ``wanted``.

    It is an image of Pillow, grey or RGB, as :func:`decode_image` gives it; or a tensor ``C x H x W`` for other
    channels (uint8) or with a range (fp32). Raises UserError as :func:`decode_image` does, and for a file of other
    channels, of other values than bytes without a range, or with values that are not finite.
    """
    if wanted.usual:
        with _opened(path, content, max_pixels) as image:
            _load(image, wanted.enough)
            return to_rgb(upright(image), "L" if wanted.channels == 1 else "RGB")
    with _one_line(path, content):
        values = read_values(path, content, max_pixels)
        if wanted.channels == 3 and values.shape[2] == 1:
            values = values.repeat(3, axis=2)
        if values.shape[2] != wanted.channels:
            raise ValueError(f"it has {values.shape[2]} channels, not {wanted.channels} as data.channels says")
        if wanted.range is None and values.dtype != np.uint8:
            raise ValueError(f"it holds {values.dtype}; give the values for 0 and 1, such as --data.range 0,4095")
        tensor = wanted.units(values)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError("it holds values that are not finite")
        return tensor


def check_image(
    path: str | Path, content: bytes | None = None, *, max_pixels: int = MAX_PIXELS, header_only: bool = False,
    wanted: Preprocess | None = None,
) -> int:  # fmt: skip
    """The image's width times height. Raises UserError as :func:`decode_image` would, or :func:`open_image` for the
    images that are ``wanted``.

    A JPEG is decoded at the lowest scale, which finds truncated files at a fraction of the cost. ``header_only``
    decodes nothing, so it finds only files that are no image, or too large.
    """
    if wanted is not None and not wanted.usual:  # as a whole: their headers need all readers too
        tensor = open_image(path, wanted, content, max_pixels)
        assert isinstance(tensor, Tensor)
        return tensor[0].numel()
    with _opened(path, content, max_pixels) as image:
        pixels = image.width * image.height
        if not header_only:
            _load(image, 8)
        return pixels


def _load(image: Image.Image, enough: int | None) -> None:
    if enough is not None:
        image.draft(image.mode, (enough, enough))
    image.load()


@contextmanager
def _opened(path: str | Path, content: bytes | None, max_pixels: int) -> Iterator[Image.Image]:
    """The image in ``path`` or ``content``, not yet decoded. Raises UserError if it cannot be opened or decoded."""
    with (
        _one_line(path, content),
        Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image,
    ):
        check_size(*image.size, max_pixels)
        yield image


@contextmanager
def _one_line(path: str | Path, content: bytes | None) -> Iterator[None]:
    """Any error of a reader as a UserError that names ``path``."""
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise ValueError("it is not a regular file")
        yield
    except FileNotFoundError:
        raise UserError(f"no image at {path}") from None
    except Image.DecompressionBombError:  # Pillow's own limit, before ours
        raise UserError(f"cannot read the image {path} ({TOO_LARGE}){ADVICE}") from None
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"cannot read the image {path} (it has no known format){ADVICE}") from None
    except Exception as error:  # damaged bytes make the decoders raise any kind of error
        raise UserError(f"cannot read the image {path} ({first_line(error)}){ADVICE}") from None


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned by its EXIF orientation; unchanged if its EXIF data are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow rewrites all tags, and raises many kinds of errors for damaged ones
        return image


def to_rgb(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """``image`` of any mode as RGB, or as grey (``L``)."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, or wider: PIL's own conversion would clip it
        values = np.asarray(image)
        scale = 255 / (65535.0 if values.max(initial=0) > 255 else 255.0)
        grey = np.empty(values.shape, np.uint8)
        for i in range(0, len(values), 64):  # rows at a time, so that the doubles take little memory
            grey[i : i + 64] = np.clip(values[i : i + 64].astype(np.float64) * scale, 0, 255).round()
        image = Image.fromarray(grey)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
