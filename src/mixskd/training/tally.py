"""The loss terms of an epoch, added up on the device."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Sums of the terms, and for each the first step at which it was NaN or infinite; nothing is read back."""

    def __init__(self, sums: dict[str, Tensor] | None = None) -> None:
        self.names = tuple(sums or ())
        self.total = torch.stack([*sums.values()]) if sums else None
        self.bad: Tensor | None = None

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        """Add the scalars of ``step``, the same names at every step."""
        values = torch.stack([*terms.values()])
        if self.total is None:
            self.names, self.total = tuple(terms), torch.zeros_like(values)
        if self.bad is None:
            self.bad = torch.full_like(values, -1.0)
        self.total += values
        self.bad.masked_fill_((self.bad < 0) & ~values.isfinite(), step)

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums so far by name, scalars; empty before the first step."""
        return {} if self.total is None else dict(zip(self.names, self.total.unbind(), strict=True))

    def first_bad(self) -> dict[str, int]:
        """For each term the first step at which it was not finite, -1 for none."""
        return {} if self.bad is None else dict(zip(self.names, map(int, self.bad.tolist()), strict=True))
