"""Averages without waiting for the device: of gradients over processes, and of the weights over the updates."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mixskd.methods.parts.averaging import average_into
from mixskd.runtime.distributed import World


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace each gradient by its mean over all processes, by one all-reduce for each type of number.

    The same parameters must have a gradient in every process. Nothing is read back to the host.
    """
    gradients: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for same in gradients.values():
        flat = same[0].new_empty(sum(x.numel() for x in same))
        parts = [
            part.as_strided(x.shape, x.stride(), part.storage_offset()) if _dense(x) else part.view(x.shape)
            for part, x in zip(flat.split([x.numel() for x in same]), same, strict=True)
        ]
        torch._foreach_copy_(parts, same)
        flat /= world.size
        dist.all_reduce(flat)
        torch._foreach_copy_(same, parts)


def _dense(x: Tensor) -> bool:
    """Whether ``x`` occupies one block of memory without gaps, so that it can be copied in its own layout."""
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


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
