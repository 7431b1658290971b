"""Read search.json, the trials of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from mixskd.config.records import Amount, Mismatch, Number, Text, read_record
from mixskd.errors import UserError

FORMAT = "mixskd-search-1"
LARGEST_FILE = 2**26  # bytes
MOST_TRIALS = 100_000

Operations = Annotated[float, Meta(ge=0, le=1e30)]
Place = Annotated[int, Meta(ge=0, lt=MOST_TRIALS)]


class Trial(Struct):
    """One trial: its scores by rung in per cent, and when it ended in seconds since 1970."""

    number: Place
    state: Literal["running", "complete", "pruned", "failed", "waiting", "fail"]
    parameters: dict[Text, Any]
    scores: list[Number]
    operations: Operations
    seconds: Amount
    ended: Amount | None


class SearchFile(Struct):
    """``search.json``: ``operations`` of a run on each rung, and by trial the scores on ``test``."""

    format: Literal["mixskd-search-1"]
    operations: Annotated[list[Operations], Meta(min_length=1)]
    winner: Place | None
    tested: dict[Text, dict[Text, Any]]
    importance: dict[Text, Number]
    trials: Annotated[list[Trial], Meta(max_length=MOST_TRIALS)]


def read_search(path: Path) -> dict[str, Any]:
    """The content of search.json. Raises UserError, naming the file, for anything else."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Mismatch(f"it has more than {LARGEST_FILE:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        read_record(value, SearchFile)
    except (OSError, ValueError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, Mismatch) else ""
        raise UserError(f"{path} is not the file of a search{reason}; remove it, or make it again") from None
    found: dict[str, Any] = value
    return found
