"""Activation checkpointing: the backward pass computes the maps within a stage again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mixskd.backbones import StagedBackbone
from mixskd.methods.parts.branches import AuxiliaryBranches


def checkpoint_stages(method: nn.Module) -> None:
    """Let each stage of networks and branches in ``method`` keep only its input for the backward pass.

    Losses, gradients and running statistics stay the same: what is computed again has the same random numbers, and
    leaves the statistics of batch norms as they are.
    """
    for module in method.modules():
        stages: list[nn.Module] = []
        if isinstance(module, StagedBackbone):
            stages = [*module.stages]
        elif isinstance(module, AuxiliaryBranches):
            stages = [stage for tail in module.alignments for stage in tail]  # type: ignore[union-attr]
        for stage in stages:
            stage.forward = partial(_recomputed, stage, stage.forward)  # type: ignore[method-assign]


def _recomputed(stage: nn.Module, forward: Callable[..., Any], x: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(x)
    if torch.compiler.is_compiling():  # a compiled graph writes each statistic once
        return checkpoint(forward, x, use_reentrant=False)
    return checkpoint(forward, x, use_reentrant=False, context_fn=partial(_contexts, stage))


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _on_copies(stage)


@contextmanager
def _on_copies(stage: nn.Module) -> Iterator[None]:
    """A context in which ``stage`` has copies of its buffers, so that the originals are not updated."""
    own = [(module, dict(module._buffers)) for module in stage.modules() if module._buffers]
    for module, buffers in own:
        module._buffers = {name: None if x is None else x.clone() for name, x in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers = buffers
