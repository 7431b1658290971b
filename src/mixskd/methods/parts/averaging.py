"""Moving averages of a network's weights."""

import torch
from torch import Tensor, nn

from mixskd.runtime.distributed import gather_batch


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, weight: float | Tensor) -> None:
    """w <- (1 - weight) w + weight w_model for the weights and statistics of ``average``, a copy of ``model``.

    Counters are copied; a ``weight`` of 1 copies all. As a scalar tensor it is not read on the host.
    """
    (mine, counters), (others, their_counters) = tensors(average), tensors(model)
    if isinstance(weight, Tensor):
        torch._foreach_lerp_(mine, others, [weight] * len(mine))
    else:
        torch._foreach_lerp_(mine, others, weight)
    if counters:  # one of each norm
        torch._foreach_copy_(counters, their_counters)


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Replace the running statistics of ``model`` by their mean over all processes, whose batches differ."""
    statistics = [x for x in model.buffers() if x.is_floating_point()]
    if not statistics:
        return
    gathered = gather_batch(torch.cat([x.flatten() for x in statistics])[None])
    if len(gathered) > 1:
        parts = gathered.mean(0).split([x.numel() for x in statistics])
        torch._foreach_copy_(statistics, [part.view_as(x) for part, x in zip(parts, statistics, strict=True)])


def tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters and buffers of ``model``: the floating-point ones, and the others."""
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x in (*model.parameters(), *model.buffers()):
        both[not x.is_floating_point()].append(x)
    return both
