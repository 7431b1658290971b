"""The file search.json, in which a search leaves its trials for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixskd.artifacts.stored_files import count, figure
from mixskd.config.schema import Mismatch, anything, choice, integer, items, optional, record, string, table
from mixskd.errors import UserError

FORMAT = "mixskd-search-1"
LARGEST_FILE = 2**26  # bytes
MOST_TRIALS = 100_000
STATES = ("running", "complete", "pruned", "failed", "waiting", "fail")

TRIAL = record({
    "number": integer(0, MOST_TRIALS), "state": choice(*STATES), "parameters": table(anything), "scores": items(figure),
    "operations": count, "seconds": count, "ended": optional(count),
})  # fmt: skip
SEARCH = record({
    "format": choice(FORMAT), "operations": items(count, 1), "winner": optional(integer(0, MOST_TRIALS)),
    "tested": table(table(anything), string(20)), "importance": table(figure), "trials": items(TRIAL, 0, MOST_TRIALS),
})  # fmt: skip


def read_search(path: Path) -> dict[str, Any]:
    """The content of search.json. Raises UserError, naming the file, for anything else."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Mismatch(f"it has more than {LARGEST_FILE:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        SEARCH(value, "")
    except (OSError, ValueError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, Mismatch) else ""
        raise UserError(f"{path} is not the file of a search{reason}; remove it, or make it again") from None
    found: dict[str, Any] = value
    return found
