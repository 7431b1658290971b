"""``mixskd predict``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixskd.cli.flags import add_device, add_run, count
from mixskd.cli.progress import image_bar
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json

if TYPE_CHECKING:
    from mixskd.deploy.prediction_file import Prediction

SUMMARY = "Name the likeliest classes of images."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_run(p)
    p.add_argument("images", nargs="+", metavar="PATH", help="image files, folders, or patterns such as 'in/*.jpg'")
    p.add_argument("--out", metavar="FILE", help="write the predictions there: .csv, or .jsonl for JSON lines")
    p.add_argument("--overwrite", action="store_true", help="replace the file in --out")
    p.add_argument("--top", type=count, default=5, help="classes per image")
    p.add_argument(
        "--threshold", type=float, metavar="P",
        help="below this probability, name the class unknown, or of several labels none",
    )  # fmt: skip
    p.add_argument("--temperature", type=float, metavar="T", help="divide the logits by T")
    p.add_argument("--skip-bad-images", action="store_true", help=argparse.SUPPRESS)  # of version 0.1: always so now
    p.add_argument(
        "--flips", action="store_true",
        help="the mean of the probabilities of an image and its mirror image, at twice the cost",
    )  # fmt: skip
    p.add_argument("--batch-size", type=count, default=64, help="images at a time")
    p.add_argument("--workers", type=int, help="processes that decode images; by default as many as the cores allow")
    p.add_argument(
        "--max-pixels", type=count, default=100_000_000, metavar="N", help="largest width times height of an image"
    )
    add_device(p)
    p.add_argument("--json", action="store_true")
    p.epilog = (
        "An image that cannot be read is named, and the exit code is then 1. "
        "Temperature and threshold are those that mixskd calibrate stored, or 1 and 0; --temperature 1 --threshold 0 "
        "leaves them out. Where an image may have several labels, a class has a threshold in the model file, and every "
        "class gets a probability; --top limits what the screen shows."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the likeliest classes of each image, or write them to a file; 1 if an image could not be read."""
    from mixskd.data.image_paths import image_files
    from mixskd.deploy.predicting import prepared
    from mixskd.deploy.prediction_file import Counts, write_predictions

    names = ("top", "batch_size", "device", "workers", "max_pixels", "temperature", "threshold", "flips")
    predictor = prepared(
        arguments.run, arguments.images, out=arguments.out, overwrite=arguments.overwrite,
        **{name: getattr(arguments, name) for name in names},
    )  # fmt: skip
    if predictor.uses_stored:
        threshold = "" if predictor.several else f", threshold {predictor.threshold:.4g}"
        note = "(what is not given comes from mixskd calibrate)"
        show(f"temperature {predictor.temperature:.4g}{threshold} {note}", error=True)
    counts, printed = Counts(), arguments.out is None and sys.stdout.isatty()
    with image_bar(lambda: sum(1 for _ in image_files(arguments.images)), hidden=printed) as advance:
        predictions = _with_progress(predictor(arguments.images), advance)
        if arguments.out is not None:
            written = write_predictions(predictions, Path(arguments.out), top=predictor.top, several=predictor.several)
            print(to_json(written)) if arguments.json else show(written_line(written))
            return int(written["skipped"] > 0)
        counted = counts.over(predictions)
        _print_json(counted) if arguments.json else _print_lines(counted, predictor.top)
    if counts.skipped:
        show(f"skipped {counts.skipped} of {counts.images} images, which cannot be read", error=True)
    return int(counts.skipped > 0)


def written_line(written: dict[str, Any]) -> str:
    """The file that was written, and the images in it."""
    line = f"{written['out']}: {written['images']:,} images"
    line += f", {written['unknown']:,} of them unknown" if written["unknown"] else ""
    return line + (f", {written['skipped']:,} skipped, which cannot be read" if written["skipped"] else "")


def _with_progress(predictions: Iterable[Prediction], advance: Callable[[], object]) -> Iterator[Prediction]:
    """``predictions``; each advances the bar, and images that were skipped are named, once one could be read."""
    waiting, readable = [], False
    for prediction in predictions:
        if "error" in prediction:
            waiting.append(f"skipped: {prediction['error']}")
        readable = readable or "error" not in prediction
        if readable and waiting:
            show(*waiting, error=True)
            waiting = []
        advance()
        yield prediction


def _print_lines(predictions: Iterable[Prediction], top: int) -> None:
    from mixskd.deploy.prediction_file import is_unknown

    for prediction in predictions:
        if "error" in prediction:
            continue
        likeliest = "  ".join(f"{c['name']} {100 * c['probability']:.1f} %" for c in prediction["classes"][:top])
        named = ", ".join(prediction["labels"]) or "none" if "labels" in prediction else prediction["class"]
        shown = f"{named} ({likeliest})" if "labels" in prediction or is_unknown(prediction) else likeliest
        show(f"{prediction['image']}: {shown}")


def _print_json(predictions: Iterable[Prediction]) -> None:
    """One JSON list, printed as it grows."""
    before = "["
    for prediction in predictions:
        print(before + to_json(prediction), end="")
        before = ", "
    print("]")
