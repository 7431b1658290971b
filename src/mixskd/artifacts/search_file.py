"""Read search.json, the trials of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from mixskd.artifacts.stored_files import read_json
from mixskd.config.records import Amount, Number, Text

FORMAT = "mixskd-search-1"
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
    return read_json(path, SearchFile, "the file of a search", digest=False)[0]
