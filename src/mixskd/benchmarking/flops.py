"""Counting arithmetic: torch's counter, with grouped convolutions right in the backward pass as well."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode


def flop_counter() -> FlopCounterMode:
    """Counts convolutions and matrix products within its context; a multiplication and an addition are two FLOPs.

    torch counts the gradients of a grouped convolution as if it had one group, which for a depthwise one is too much
    by the number of channels.
    """
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward_flops}
    )


def convolution_backward_flops(
    out_gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """FLOPs of the gradients by input and by weights, of which each costs as much as the forward pass."""
    positions = (x if transposed else out_gradient)[2:]
    forward = 2 * x[0] * prod(positions) * prod(weight)  # weights hold the input channels of one group only
    return forward * sum(wanted[:2])
