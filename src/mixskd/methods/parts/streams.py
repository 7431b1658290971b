"""Modules that do not depend on each other, side by side on a GPU while a step is recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor

from mixskd.backbones.tokens import FeatureMap, each

_wanted: ContextVar[bool] = ContextVar("side_by_side", default=False)


@contextmanager
def side_by_side(wanted: bool = True) -> Iterator[None]:
    """Within it :func:`run_all` takes streams, if a CUDA graph is recorded meanwhile."""
    before = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(before)


def run_all(modules: Sequence[Callable[[FeatureMap], FeatureMap]], inputs: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Each of ``modules`` on its input, one after the other; or each on a stream of its own, see :func:`side_by_side`.

    The streams begin after what was launched before, and the current stream goes on when all have ended. The backward
    pass takes the same streams and joins them: autograd runs each operation where its forward ran.
    """
    if torch.compiler.is_compiling() or not _wanted.get() or len(modules) < 2:
        return [module(x) for module, x in zip(modules, inputs, strict=True)]
    if not torch.cuda.is_current_stream_capturing():  # launched from the host, they would only cost more
        return [module(x) for module, x in zip(modules, inputs, strict=True)]
    main, fork = torch.cuda.current_stream(), torch.cuda.Event()
    fork.record(main)
    results, joins = [], []
    for module, x in zip(modules, inputs, strict=True):
        stream, done = torch.cuda.Stream(), torch.cuda.Event()
        stream.wait_event(fork)
        with torch.cuda.stream(stream):
            results.append(_kept_for(main, module(_kept_for(stream, x))))
            done.record(stream)
        joins.append(done)
    for done in joins:
        main.wait_event(done)
    return results


def _kept_for(stream: torch.cuda.Stream, feature_map: FeatureMap) -> FeatureMap:
    return each(partial(_used_on, stream), feature_map)


def _used_on(stream: torch.cuda.Stream, x: Tensor) -> Tensor:
    """``x``, whose memory is not used for anything else before ``stream`` is done with it."""
    if x.is_cuda:
        x.record_stream(stream)
    return x
