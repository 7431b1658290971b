"""The exponential moving average of the weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

from mixskd.methods.parts.averaging import average_into


class MovingAverage(AveragedModel):
    """``module``: w <- decay w + (1 - decay) w_model at each update but the first, which copies; counters are copied.

    torch's own update sends its number of updates to the device each time, for which the host waits. Here the number is
    the host's, which a CUDA graph does not count on: it only says whether there was an update before.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        average_into(self.module, model, 1 - self.decay if self.n_averaged > 0 else 1.0)
        self.n_averaged += 1
