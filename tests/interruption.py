"""A listener that ends a run as Ctrl-C does."""

from __future__ import annotations

import mixskd
from mixskd.training.listeners import StepInfo


class StopsAt(mixskd.Listener):
    """Ends a run like Ctrl-C after the step number ``last``, before its checkpoint; counts ``steps`` on the way."""

    def __init__(self, last: int = -1) -> None:
        self.steps, self.last = 0, last

    def step(self, info: StepInfo) -> None:
        self.steps += 1
        if info.step == self.last:
            raise KeyboardInterrupt
