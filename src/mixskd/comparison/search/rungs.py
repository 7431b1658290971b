"""The rungs of a search: how many training operations (FLOPs) a trial may spend before it is judged again."""

FACTOR = 3  # of the operations of a rung over those of the rung before, and of the trials that end in it
MOST_RUNGS = 3
SHORTEST = 2  # epochs of the recipe in the first rung; fewer say little
SHARE = 4  # the last rung takes at most one part in so many of the whole budget

Rungs = tuple[float, ...]
"""The training operations (FLOPs) of a run at each rung, the last one largest."""


def rungs_for(full: float, epochs: float) -> Rungs:
    """Rungs up to ``full`` operations, which pay ``epochs`` of the recipe; the first pays ``SHORTEST`` or more."""
    number = 1
    while number < MOST_RUNGS and epochs / FACTOR**number >= SHORTEST:
        number += 1
    return tuple(full / FACTOR**back for back in reversed(range(number)))
