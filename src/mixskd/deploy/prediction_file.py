"""Writes predictions as CSV or JSON lines, one by one; the file is kept only if all could be written."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from mixskd.errors import UserError
from mixskd.errors.text import safe, to_json
from mixskd.runtime.files import replacing

Prediction = Mapping[str, Any]
Write = Callable[[Prediction], object]


@dataclass
class Counts:
    """Numbers of predictions: all ``images``, ``unknown`` and ``skipped`` ones."""

    images: int = 0
    unknown: int = 0
    skipped: int = 0

    def over(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """``predictions``, counted as they pass."""
        for prediction in predictions:
            self.images += 1
            self.skipped += "error" in prediction
            self.unknown += "error" not in prediction and is_unknown(prediction)
            yield prediction


def is_unknown(prediction: Prediction) -> bool:
    """Whether the likeliest class is below the threshold. Of several labels an image, none is no answer but one."""
    return "class" in prediction and bool(prediction["class"] != prediction["classes"][0]["name"])


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises UserError if ``path`` is not a ``.csv`` or ``.jsonl`` file, or exists without ``overwrite``."""
    if path.suffix.lower() not in WRITERS:
        raise UserError(f"cannot write predictions as {path.name!r}; name a file that ends in {' or '.join(WRITERS)}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; name another file, or --overwrite")


def write_predictions(
    predictions: Iterable[Prediction], path: Path, *, top: int, several: Sequence[str] = ()
) -> dict[str, Any]:
    """Write ``predictions`` of ``top`` classes each to ``path``, by its suffix; ``{"out", "images", "unknown",
    "skipped"}``.

    The last column of a CSV says why an image could not be read. Where an image may have ``several`` of these classes,
    a CSV has its ``labels``, separated by ``;``, and a column of probabilities for each class. If anything fails,
    ``path`` stays as it was.
    """
    counts = Counts()
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write = WRITERS[path.suffix.lower()](file, top, several)
        for prediction in counts.over(predictions):
            write(prediction)
    return {"out": str(path), **asdict(counts)}


def _csv(file: TextIO, top: int, several: Sequence[str]) -> Write:
    ranks = range(1, top + 1)
    columns = ["image", "class", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability")), "error"]
    if several:
        columns = ["image", "labels", *(safe(name, "csv") for name in several), "error"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)

    def write(prediction: Prediction) -> None:
        named = prediction.get("class", ";".join(prediction.get("labels", ())))
        cells: list[Any] = [safe(prediction["image"], "csv"), safe(named, "csv")]
        if several:
            of = {likely["name"]: likely["probability"] for likely in prediction.get("classes", ())}
            cells += [of[name] for name in several if of]
        else:
            for likely in prediction.get("classes", ()):
                cells += [safe(likely["name"], "csv"), likely["probability"]]
        cells += [""] * (len(columns) - 1 - len(cells))
        writer.writerow([*cells, safe(prediction.get("error", ""), "csv")])

    return write


WRITERS: dict[str, Callable[[TextIO, int, Sequence[str]], Write]] = {
    ".csv": _csv,
    ".jsonl": lambda file, top, several: lambda prediction: file.write(to_json(prediction) + "\n"),
}
