"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """``module``: w <- decay w + (1 - decay) w_model at each update. The first update copies; counters are copied.

    torch's own update waits for the device, to which it sends the number of updates. Here the number stays on the host.
    A CUDA graph does not advance it, but only whether it is 0 matters.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        (mine, counters), (others, their_counters) = _tensors(self.module), _tensors(model)
        if self.n_averaged > 0:
            torch._foreach_lerp_(mine, others, 1 - self.decay)
        else:
            torch._foreach_copy_(mine, others)
        if counters:  # of batch norms
            torch._foreach_copy_(counters, their_counters)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The parameters and buffers of ``model``: floating-point numbers, which are averaged, and counters."""
    both: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for x in (*model.parameters(), *model.buffers()):
        both[not x.is_floating_point()].append(x)
    return both
