"""The sums of the loss terms over an epoch."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

ROWS = 64  # steps in one block of the device's memory


class Tally:
    """Collects the terms of each step on the device, and sums them on the host when they are read.

    The host adds step by step in double precision. So the sums do not depend on when they are read, and a resumed run
    that starts from ``sums`` continues them to the bit.
    """

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self._sums = dict(sums or {})
        self._first_bad = dict.fromkeys(self._sums, -1)
        self._names: tuple[str, ...] = ()
        self._blocks: list[Tensor] = []  # the terms of the unread steps: ROWS x terms each
        self._first, self._unread = 0, 0

    def add(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Add the scalars (fp32) of ``step``. Steps follow one another, with the same names.

        It launches one operation and does not wait for the device.
        """
        values = [*terms.values()]
        row = self._unread % ROWS
        if self._unread == 0:
            self._names, self._first = tuple(terms), step
        if row == 0:
            self._blocks.append(values[0].new_empty(ROWS, len(values)))
        torch.stack(values, out=self._blocks[-1][row])
        self._unread += 1

    def _read(self) -> None:
        rows = [row for block in self._blocks for row in block.tolist()][: self._unread]
        for step, row in enumerate(rows, start=self._first):
            for name, value in zip(self._names, row, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value
                if self._first_bad.setdefault(name, -1) < 0 and not math.isfinite(value):
                    self._first_bad[name] = step
        self._blocks, self._unread = [], 0

    @property
    def sums(self) -> Mapping[str, float]:
        """The sums so far by name; empty before the first step. The host waits for the device."""
        self._read()
        return self._sums

    @property
    def first_bad(self) -> Mapping[str, int]:
        """The first step at which each term was NaN or infinite, -1 for none. The host waits for the device."""
        self._read()
        return self._first_bad
