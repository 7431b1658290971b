"""The loss terms of an epoch, added up on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

ROWS = 64  # steps whose terms are kept before they are added up, so that a step costs one launch


class Tally:
    """Sums of the terms, and for each the first step at which it was NaN or infinite; nothing is read back."""

    def __init__(self, sums: Mapping[str, Tensor] | None = None) -> None:
        self.names = tuple(sums or ())
        self.total = torch.stack([*sums.values()]) if sums else None
        self.bad: Tensor | None = None
        self.rows: Tensor | None = None
        self.first, self.filled = 0, 0

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        """Add the scalars of ``step``, the same names at every step."""
        values = [*terms.values()]
        if self.rows is None:
            self.names, self.rows = tuple(terms), values[0].new_empty(ROWS, len(values))
        if self.filled == ROWS or step != self.first + self.filled:
            self._fold()
        if self.filled == 0:
            self.first = step
        torch.stack(values, out=self.rows[self.filled])
        self.filled += 1

    def _fold(self) -> None:
        if self.rows is None or self.filled == 0:
            return
        self.total = self._sum()
        broken = ~self.rows[: self.filled].isfinite()
        step = torch.where(broken.any(0), self.first + broken.int().argmax(0), -1)
        self.bad = step if self.bad is None else torch.where(self.bad < 0, step, self.bad)
        self.filled = 0

    def _sum(self) -> Tensor | None:
        if self.rows is None or self.filled == 0:
            return self.total
        new = self.rows[: self.filled].sum(0)
        return new if self.total is None else self.total + new

    @property
    def sums(self) -> Mapping[str, Tensor]:
        """The sums so far by name, scalars; empty before the first step. They are added up where one is looked at."""
        return Sums(self)

    def first_bad(self) -> dict[str, int]:
        """For each term the first step at which it was not finite, -1 for none."""
        self._fold()
        return {} if self.bad is None else dict(zip(self.names, map(int, self.bad.tolist()), strict=True))


class Sums(Mapping[str, Tensor]):
    """The sums of a tally when they are first looked at."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    @cached_property
    def values_by_name(self) -> dict[str, Tensor]:
        total = self.tally._sum()
        return {} if total is None else dict(zip(self.tally.names, total.unbind(), strict=True))

    def __getitem__(self, name: str) -> Tensor:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)
