"""Tables with a row for each training image, which the forward pass overwrites after it has read them."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from mixskd.errors import UserError

LARGE = 2**30  # bytes


def new_table(rows: int, columns: int, like: Tensor) -> Tensor:
    """Zeros (``rows x columns``) with the type and device of ``like``.

    Raises UserError if they take more than the memory of this machine.
    """
    needed, memory = rows * columns * like.element_size(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"a table of {rows:,} images x {columns:,} classes takes {needed / 1e9:.1f} GB, and this machine has "
            f"{memory / 1e9:.1f} GB; train on fewer images (--data.per-class), or with another method"
        )
    return like.new_zeros(rows, columns)


def table_notes(tables: Iterable[Tensor], device: torch.device) -> list[str]:
    """A note for a person if ``tables`` take a gigabyte or more.

    Raises UserError if ``device`` has less free memory.
    """
    size = sum(table.nbytes for table in tables)
    if device.type == "cuda" and size > (free := torch.cuda.mem_get_info(device)[0]):
        raise UserError(
            f"the method's table of all images takes {size / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB free; "
            "train on fewer images (--data.per-class), or with another method"
        )
    if size < LARGE:
        return []
    return [f"the method keeps a table of all images: {size / 1e9:.1f} GB on the device, and in each checkpoint"]


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
