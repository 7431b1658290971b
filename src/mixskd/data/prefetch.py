"""Send each batch to a GPU while the step trains on the one before."""

import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def ahead(batches: Iterable[dict[str, Tensor]], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """``batches`` on ``device``; each batch is sent to a GPU while the one before is trained on."""
    if device.type != "cuda":
        yield from batches
        return
    stream, waiting = side_stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            sent = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
            arrived = stream.record_event()
        if waiting is not None:
            yield _received(*waiting)
        waiting = (sent, arrived)
    if waiting is not None:
        yield _received(*waiting)


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for transfers to ``device``: one for all epochs, since only it can reuse the memory freed on it."""
    return torch.cuda.Stream(device)


def _received(batch: dict[str, Tensor], arrived: torch.cuda.Event) -> dict[str, Tensor]:
    main = torch.cuda.current_stream()
    main.wait_event(arrived)
    for x in batch.values():
        x.record_stream(main)
    return batch
