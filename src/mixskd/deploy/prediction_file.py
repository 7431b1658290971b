"""Writes predictions as CSV or JSON lines, one by one; the file is kept only if all could be written."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Whether the likeliest class is below the threshold."""
    return bool(prediction["class"] != prediction["classes"][0]["name"])


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises UserError if ``path`` is not a ``.csv`` or ``.jsonl`` file, or exists without ``overwrite``."""
    if path.suffix.lower() not in WRITERS:
        raise UserError(f"cannot write predictions as {path.name!r}; name a file that ends in {' or '.join(WRITERS)}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; name another file, or --overwrite")


def write_predictions(predictions: Iterable[Prediction], path: Path, *, top: int) -> dict[str, Any]:
    """Write ``predictions`` of ``top`` classes each to ``path``, by its suffix; ``{"out", "images", "unknown",
    "skipped"}``.

    The last column of a CSV says why an image could not be read. If anything fails, ``path`` stays as it was.
    """
    counts = Counts()
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write = WRITERS[path.suffix.lower()](file, top)
        for prediction in counts.over(predictions):
            write(prediction)
    return {"out": str(path), **asdict(counts)}


def _csv(file: TextIO, top: int) -> Write:
    ranks = range(1, top + 1)
    classes = (f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))
    columns = ["image", "class", *classes, "error"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)

    def write(prediction: Prediction) -> None:
        cells: list[Any] = [safe(prediction["image"], "csv"), safe(prediction.get("class", ""), "csv")]
        for likely in prediction.get("classes", ()):
            cells += [safe(likely["name"], "csv"), likely["probability"]]
        cells += [""] * (len(columns) - 1 - len(cells))
        writer.writerow([*cells, safe(prediction.get("error", ""), "csv")])

    return write


WRITERS: dict[str, Callable[[TextIO, int], Write]] = {
    ".csv": _csv,
    ".jsonl": lambda file, top: lambda prediction: file.write(to_json(prediction) + "\n"),
}
