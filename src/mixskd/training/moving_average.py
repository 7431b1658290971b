"""The exponential moving average of the weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

from mixskd.methods.parts.averaging import average_into


class MovingAverage(AveragedModel):
    """``module``: w <- decay w + (1 - decay) w_model at each update. The first update copies; counters are copied.

    torch's own update waits for the device, to which it sends the number of updates. Here the number stays on the host.
    A CUDA graph does not advance it, but only whether it is 0 matters.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        average_into(self.module, model, 1 - self.decay if self.n_averaged > 0 else 1.0)
        self.n_averaged += 1
