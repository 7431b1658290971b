"""A curve in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#@"


def sparkline(values: Sequence[float], *, plain: bool = False) -> str:
    """A character for each of ``values``, from the lowest to the highest; ``?`` for one that is not finite.

    ``plain`` uses ASCII alone.
    """
    marks = PLAIN if plain else BLOCKS
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    step = (high - low) / (len(marks) - 1) or 1.0
    return "".join(marks[round((value - low) / step)] if math.isfinite(value) else "?" for value in values)
