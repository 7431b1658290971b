"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """``module``: w <- decay w + (1 - decay) w_model at each update but the first, which copies; counters are copied.

    torch's own update sends its number of updates to the device each time, for which the host waits.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        if self.n_averaged > 0:
            averaged = [pair for pair in pairs if pair[0].is_floating_point()]
            torch._foreach_lerp_([mine for mine, _ in averaged], [other for _, other in averaged], 1 - self.decay)
            pairs = [pair for pair in pairs if not pair[0].is_floating_point()]
        for mine, other in pairs:
            mine.copy_(other)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
