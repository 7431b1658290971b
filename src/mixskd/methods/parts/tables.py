"""Rows of a table that the forward pass overwrites after it has read them."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("mixskd::read_rows", mutates_args=(), schema="(Tensor table, Tensor rows) -> Tensor")
def read_rows(table: Tensor, rows: Tensor) -> Tensor:
    """``table[rows]``, as the table is now.

    A compiler may compute an index again in the backward pass, from a table that has changed by then: the gradients are
    wrong, and nothing says so. An op that it does not know is never computed twice.
    """
    return table[rows]


@read_rows.register_fake
def _(table: Tensor, rows: Tensor) -> Tensor:
    return table.new_empty(*rows.shape, *table.shape[1:])
