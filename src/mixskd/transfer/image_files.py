"""Reading every image once before a run begins, to find damaged files and files of another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ExifTags, Image

from mixskd.data.file_list import FileList
from mixskd.data.images import ADVICE, FORMATS, MAX_PIXELS, check_image
from mixskd.data.verify import examine
from mixskd.errors import UserError

Size = tuple[int, int]
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def image_size(path: Path) -> Size:
    """Width and height of the upright image, read from the header. Raises UserError for a file without one."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            try:
                turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            except Exception:  # damaged EXIF data, which the decoder ignores too
                turned = False
    except FileNotFoundError:
        raise UserError(f"no image at {path}") from None
    except Exception as error:  # damaged bytes end the decoders in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}){ADVICE}") from None
    return (height, width) if turned else (width, height)


def examined(files: Sequence[Path], verify: str = "cached", max_pixels: int = MAX_PIXELS) -> Iterator[Size | UserError]:
    """The size of each of ``files``, in order, or the UserError of one that cannot be decoded or is too large.

    ``verify`` is ``data.verify``; as in classification, a file that was decoded once is not decoded at later starts.
    """
    fine: Sequence[bool] = [False] * len(files)
    if verify in ("cached", "full"):
        fine = (examine(FileList.of(files), max_pixels, [], renew=verify == "full")["pixels"] > 0).tolist()

    def look(path: Path, fine: bool) -> Size | UserError:
        try:
            if not fine:
                check_image(path, max_pixels=max_pixels, header_only=verify == "headers")
            return image_size(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(look, files, fine)
