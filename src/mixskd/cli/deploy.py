"""The verbs ``predict``, ``calibrate`` and ``push``: their flags, and what they print. It imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mixskd.errors.text import safe, to_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from mixskd.deploy.predicting import Predictor
    from mixskd.deploy.prediction_file import Prediction

RUN = "a run's folder or a .safetensors file"


def add_predict_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of ``mixskd predict``."""
    p.add_argument("run", help=RUN)
    p.add_argument("images", nargs="+", metavar="PATH", help="image files, folders, or patterns such as 'in/*.jpg'")
    p.add_argument("--out", metavar="FILE", help="write the predictions there: .csv, or .jsonl for JSON lines")
    p.add_argument("--overwrite", action="store_true", help="replace the file in --out")
    p.add_argument("--top", type=int, default=5, help="classes per image")
    p.add_argument("--threshold", type=float, metavar="P", help="below this probability, name the class unknown")
    p.add_argument("--temperature", type=float, metavar="T", help="divide the logits by T")
    p.add_argument("--skip-bad-images", action="store_true", help="name images that cannot be read, and continue")
    p.add_argument("--batch-size", type=int, default=64, help="images at a time")
    p.add_argument("--workers", type=int, help="processes that decode images; by default as many as the cores allow")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    p.add_argument("--json", action="store_true")
    p.epilog = (
        "Temperature and threshold are those that mixskd calibrate stored, or 1 and 0; --temperature 1 --threshold 0 "
        "leaves them out."
    )


def predict(arguments: argparse.Namespace) -> None:
    """Print the likeliest classes of each image, or write them to a file."""
    from pathlib import Path

    from mixskd.deploy.predicting import prepared
    from mixskd.deploy.prediction_file import Counts, write_predictions

    names = ("top", "batch_size", "device", "workers", "skip_bad_images", "temperature", "threshold")
    predictor = prepared(
        arguments.run, arguments.images, out=arguments.out, overwrite=arguments.overwrite,
        **{name: getattr(arguments, name) for name in names},
    )  # fmt: skip
    _say_what_was_fitted(predictor)
    counts = Counts()
    with _bar(arguments) as bar:
        predictions = _told(predictor(arguments.images), bar)
        if arguments.out is not None:
            written = write_predictions(
                predictions, Path(arguments.out), top=predictor.top, errors=predictor.skip_bad_images
            )
            print(to_json(written) if arguments.json else said(written))
            return
        (_print_json if arguments.json else _print_lines)(counts.over(predictions))
    if counts.skipped:
        print(f"skipped {counts.skipped} of {counts.images} images, which cannot be read", file=sys.stderr)


def said(written: dict[str, Any]) -> str:
    """In a line, what was written."""
    line = f"{safe(written['out'], 'terminal')}: {written['images']:,} images"
    line += f", {written['unknown']:,} of them unknown" if written["unknown"] else ""
    return line + (f", {written['skipped']:,} skipped, which cannot be read" if written["skipped"] else "")


def _say_what_was_fitted(predictor: Predictor) -> None:
    if predictor.uses_stored:
        print(
            f"temperature {predictor.temperature:.4g}, threshold {predictor.threshold:.4g} "
            "(what is not given comes from mixskd calibrate)",
            file=sys.stderr,
        )


def _told(predictions: Iterable[Prediction], bar: Callable[[], object]) -> Iterator[Prediction]:
    """``predictions``; each moves the bar, and images that were skipped are named."""
    for prediction in predictions:
        if "error" in prediction:
            print(f"skipped: {safe(prediction['error'], 'terminal')}", file=sys.stderr)
        bar()
        yield prediction


def _print_lines(predictions: Iterable[Prediction]) -> None:
    from mixskd.deploy.prediction_file import is_unknown

    for prediction in predictions:
        if "error" in prediction:
            continue
        likeliest = "  ".join(
            f"{safe(c['name'], 'terminal')} {100 * c['probability']:.1f} %" for c in prediction["classes"]
        )
        shown = f"{prediction['class']} ({likeliest})" if is_unknown(prediction) else likeliest
        print(f"{safe(prediction['image'], 'terminal')}: {shown}")


def _print_json(predictions: Iterable[Prediction]) -> None:
    """One JSON list, printed as it grows."""
    before = "["
    for prediction in predictions:
        print(before + to_json(prediction), end="")
        before = ", "
    print("]")


@contextmanager
def _bar(arguments: argparse.Namespace) -> Iterator[Callable[[], object]]:
    """A progress bar on a terminal where no predictions are printed; what moves it by an image."""
    if not sys.stderr.isatty() or (arguments.out is None and sys.stdout.isatty()):
        yield lambda: None
        return
    from mixskd.data.image_paths import image_files

    with _progress() as shown:
        task = shown.add_task("predict", total=sum(1 for _ in image_files(arguments.images)))
        yield lambda: shown.advance(task)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def add_calibrate_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of ``mixskd calibrate``."""
    p.add_argument("run", help=RUN)
    p.add_argument("--data", help="a data set with a validation split; the run's data by default")
    goal = p.add_mutually_exclusive_group()
    goal.add_argument(
        "--target-accuracy", type=float, metavar="PERCENT",
        help="the accuracy of the images above the threshold on val; 95 by default",
    )  # fmt: skip
    goal.add_argument(
        "--coverage", type=float, metavar="PERCENT", help="or the share of the images of val above the threshold"
    )
    p.add_argument("--batch-size", type=int, default=256)
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    p.add_argument("--json", action="store_true")


def calibrate(arguments: argparse.Namespace) -> None:
    """Fit a temperature and a threshold, store them, and print how good they are."""
    from mixskd.cli.evaluate import bars
    from mixskd.deploy.calibrating import calibrate as run

    with bars(1) as progress:
        fitted = run(
            arguments.run, arguments.data, target_accuracy=arguments.target_accuracy, coverage=arguments.coverage,
            batch_size=arguments.batch_size, device=arguments.device,
            progress=lambda share: progress(arguments.run, "calibrate", share),
        )  # fmt: skip
    if arguments.json:
        print(to_json(fitted))
        return
    before, after = fitted["before"], fitted["after"]
    for line in (
        f"temperature {fitted['temperature']:.4g}: NLL {before['nll']:.4f} -> {after['nll']:.4f}, "
        f"ECE {before['ece']:.2f} % -> {after['ece']:.2f} % on the {fitted['images']:,} images of val",
        f"threshold {fitted['threshold']:.4g}: accepts {fitted['accepted']:.2f} % of them, "
        f"{fitted['accepted_images']:,}, with top-1 {fitted['accepted_top1']:.2f} %; all have {fitted['top1']:.2f} %",
        "stored in the model file; mixskd predict uses both",
    ):
        print(line)


def add_push_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of ``mixskd push``."""
    p.add_argument("run", help=RUN)
    p.add_argument("repository", nargs="?", metavar="REPO_ID", help="a repository of the Hugging Face Hub: ME/MODEL")
    p.add_argument("--to-folder", metavar="DIR", help="write the files there and send nothing")
    p.add_argument("--public", action="store_true", help="make a new repository public; it is private by default")
    p.add_argument("--overwrite", action="store_true", help="replace the files in --to-folder")


def push(arguments: argparse.Namespace) -> None:
    """Publish a classifier with its card, and print where."""
    from mixskd.deploy.hub import push as run

    place = run(
        arguments.run, arguments.repository, to_folder=arguments.to_folder, public=arguments.public,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    print(safe(place, "terminal"))
