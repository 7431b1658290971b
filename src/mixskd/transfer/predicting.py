"""A trained detector or segmentation network used on images, and its predictions beside the annotations."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from mixskd.data.images import EXTENSIONS, decode_image
from mixskd.errors import UserError, check_positive
from mixskd.runtime.files import write_text
from mixskd.runtime.precision import choose_device
from mixskd.tasks.scoring import evaluation_mode
from mixskd.transfer.evaluating import data_of
from mixskd.transfer.network_file import load_network
from mixskd.transfer.source_files import image_size


@torch.inference_mode()
def predict(
    path: str | Path, images: Sequence[str | Path], out: str | Path, *, threshold: float = 0.5, batch_size: int = 8,
    device: str = "auto",
) -> list[dict[str, Any]]:  # fmt: skip
    """Draw boxes or masks on ``images`` and write them to the folder ``out``, with ``predictions.json`` beside them.

    The JSON is a list in COCO's results format, with ``file_name`` added: boxes with their scores, or a mask
    (uncompressed RLE) for each class that was found. If the names of all files are different numbers, they are the
    images' ids; else an id is an image's place, from 1 on. Boxes of a score below ``threshold`` are written, but not
    drawn.

    ``images`` are files and folders of images. Images of one size are predicted together, up to ``batch_size`` at a
    time; so each result is that of the image alone. Before anything is written, raises UserError naming a file without
    the header of an image, and for drawings that would replace each other or an image; later, naming a damaged one.
    """
    check_positive(batch_size=batch_size)
    files, folder = files_of(images), Path(out)
    model, about = load_network(path)
    model.to(choose_device(device))
    pipeline = about.pipeline()
    check_drawings(files, folder, pipeline.endings)
    sizes = [image_size(file) for file in files]
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {int(file.stem) for file in files if file.stem.isdecimal() and len(file.stem) < 16}
    numbered = len(numbers) == len(files)
    entries: dict[int, list[dict[str, Any]]] = {}
    with evaluation_mode(model):
        for places in batches(sizes, batch_size):
            decoded = [decode_image(files[place]) for place in places]
            for place, image, found in zip(places, decoded, pipeline.find(model, decoded), strict=True):
                file = files[place]
                pipeline.draw(image, found, about.classes, threshold).save(folder / f"{file.stem}.png")
                pipeline.save_found(found, about.classes, folder / file.stem)
                rows = pipeline.entries(found, int(file.stem) if numbered else place + 1, about)
                entries[place] = [{**row, "file_name": file.name} for row in rows]
    ordered = [entry for place in sorted(entries) for entry in entries[place]]
    write_text(folder / "predictions.json", json.dumps(ordered) + "\n")
    return ordered


def files_of(images: Sequence[str | Path]) -> list[Path]:
    """The files among ``images``, and those in its folders. Raises UserError without any."""
    files: list[Path] = []
    for path in map(Path, images):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += [file for file in inside if file.suffix.lower() in EXTENSIONS] if path.is_dir() else [path]
    if not files:
        raise UserError(f"there is no image in {', '.join(map(str, images))}")
    return files


def check_drawings(files: Sequence[Path], folder: Path, endings: Sequence[str]) -> None:
    """Raises UserError if a drawing of one of ``files``, ``folder``/NAME with one of ``endings``, would replace another
    drawing or one of ``files``.
    """
    made: dict[Path, Path] = {}
    given = {file.resolve() for file in files}
    for file in files:
        for drawing in (folder.resolve() / f"{file.stem}{ending}" for ending in endings):
            if drawing in given:
                raise UserError(
                    f"a drawing of {file} would replace the image {drawing}; give another folder with --out"
                )
            if drawing in made:
                raise UserError(f"{made[drawing]} and {file} would both be drawn to {drawing.name}; rename one of them")
            made[drawing] = file


def batches(sizes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[tuple[int, ...]]:
    """The places of images of equal ``sizes``, at most ``batch_size`` at a time."""
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for _, places in itertools.groupby(order, key=lambda place: sizes[place]):
        same = list(places)
        for start in range(0, len(same), batch_size):
            yield tuple(same[start : start + batch_size])


class Example(NamedTuple):
    """One image ``file`` with its annotation drawn, and with what the network finds."""

    file: Path
    annotated: Image.Image
    found: Image.Image


@torch.inference_mode()
def examples(path: str | Path, split: str, count: int, *, threshold: float = 0.5) -> list[Example]:
    """``count`` images of ``split``, evenly spread over it, of the run at ``path``, with boxes or masks drawn.

    Predicted boxes of a score below ``threshold`` are not drawn; annotated crowds are. Raises UserError if weights or
    data cannot be read, and KeyError without such a split.
    """
    model, about = load_network(path)
    pipeline = about.pipeline(skip_bad_annotations=True, check=False)
    images = data_of(path, about, pipeline).annotated[split]
    places = sorted({round(i * (len(images) - 1) / max(count - 1, 1)) for i in range(min(count, len(images)))})
    made = []
    for place in places:
        file = images.files[place]
        image = decode_image(file, max_pixels=images.max_pixels)
        (found,) = pipeline.find(model, [image])
        drawn = pipeline.draw(image, found, about.classes, threshold)
        made.append(Example(file, pipeline.draw_truth(image, images, place), drawn))
    return made
