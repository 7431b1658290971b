"""What all sources of annotated images share: lists of names, sizes of images, and bad items that are counted."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image

from mixskd.data.file_list import FileList
from mixskd.data.images import ADVICE, FORMATS, MAX_PIXELS, check_image
from mixskd.data.verify import examine
from mixskd.errors import UserError, first_line

Size = tuple[int, int]  # width and height
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass
class BadItems:
    """The bad items of one split. A kind of item that is not skipped raises a UserError at once."""

    skip_annotations: bool = False
    skip_images: bool = False
    annotations: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    empty_boxes: list[str] = field(default_factory=list)

    def annotation(self, problem: str) -> None:
        """Count a bad annotation; ``problem`` is one line that names the file."""
        if not self.skip_annotations:
            raise UserError(f"{problem}; correct it, or leave such items out with --skip-bad-annotations")
        self.annotations.append(problem)

    def image(self, problem: str) -> None:
        """Count an image that cannot be read; ``problem`` is one line that names the file."""
        if not self.skip_images:
            raise UserError(problem)
        self.images.append(problem)

    def notes(self, where: str) -> tuple[str, ...]:
        """One line for each kind of item of ``where`` that was left out."""
        kinds = {
            "bad annotations": self.annotations,
            "unreadable images": self.images,
            "boxes of zero or almost zero width or height": self.empty_boxes,
        }
        return tuple(
            f"{len(found)} {kind} of {where} are left out; the first: {found[0]}"
            for kind, found in kinds.items()
            if found
        )


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
        raise UserError(f"cannot read the image {path} ({first_line(error)}){ADVICE}") from None
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


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty, stripped. Raises UserError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    return [line.strip() for line in lines if line.strip()]
