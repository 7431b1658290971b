"""Measure times once per processor and keep them in the user's cache folder."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import torch

from mixskd.config.records import Amount
from mixskd.errors import UserError
from mixskd.runtime.files import in_user_cache, locked, write_text
from mixskd.runtime.precision import device_name

BUDGET = 1.8  # seconds for all measurements of one start


def cache_file() -> Path:
    """The file that ``MIXSKD_MEASURED`` names, or ``measured.json`` in the user's cache folder."""
    return in_user_cache("measured.json", "MIXSKD_MEASURED")


def processor() -> str:
    """Processor, threads and version of torch, on which the times depend."""
    return f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def remembered(what: str, measure: Callable[[], Mapping[str, float]]) -> dict[str, float] | None:
    """The result of ``measure`` (positive numbers by name) for ``what`` on this processor, from the cache if possible.

    If the cache cannot be written, nothing is measured and the result is None, because each run might then choose
    differently. An empty result is not kept. Processes that call this at the same time wait for the first.
    """
    path, key = cache_file(), f"{what}; {processor()}"
    try:
        with locked(path.with_suffix(".lock")):
            known = _read(path)
            found = known.get(key) or {}
            if not found:
                found = dict(measure())
                if found:
                    write_text(path, json.dumps({**known, key: found}, indent=1) + "\n")
            return found
    except (OSError, UserError):
        return None


def _read(path: Path) -> dict[str, dict[str, float]]:
    """The content of the file; empty if it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Amount]])
    except (OSError, msgspec.MsgspecError):
        return {}


def race(acts: Mapping[str, Callable[[], object]], seconds: float, rounds: int = 5) -> dict[str, float]:
    """The seconds of one call of each of ``acts``, which take turns: the fastest of up to ``rounds`` calls.

    Each is called once before. A round starts only if it ends within ``seconds``, judged by the round before. The
    fastest call counts, since other work on the machine can only make a call slower.
    """
    start = begun = time.perf_counter()
    found = {name: seconds_of(act) for name, act in acts.items()}
    for i in range(rounds):
        now = time.perf_counter()
        if now + (now - begun) > start + seconds:
            break
        begun = now
        for name, act in acts.items():
            took = seconds_of(act)
            found[name] = took if i == 0 else min(found[name], took)
    return found


def seconds_of(act: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
