"""Activation checkpointing: the backward pass computes the maps within a block again instead of keeping them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mixskd.backbones import StagedBackbone
from mixskd.methods.parts.branches import AuxiliaryBranches


def checkpoint_stages(method: nn.Module) -> None:
    """Let each block of the stages of networks and branches in ``method`` keep only its input for the backward pass.

    Losses, gradients and running statistics stay the same: what is computed again has the same random numbers, and
    leaves the statistics of batch norms as they are. A stage that is no chain of modules is one block.
    """
    for module in method.modules():
        stages: list[nn.Module] = []
        if isinstance(module, StagedBackbone):
            stages = [*module.stages]
        elif isinstance(module, AuxiliaryBranches):
            stages = [stage for tail in module.alignments for stage in tail]  # type: ignore[union-attr, attr-defined]
        for stage in stages:
            found = blocks(stage) if type(stage) is nn.Sequential else [[stage]]
            forwards = [[layer.forward if layer is stage else layer for layer in block] for block in found]
            stage.forward = partial(_run, [*zip(found, forwards, strict=True)])  # type: ignore[method-assign]


def blocks(chain: nn.Sequential) -> list[list[nn.Module]]:
    """The modules of ``chain``, opened where they are chains; simple layers in a row are one block."""
    found: list[list[nn.Module]] = []
    for module in chain:
        simple = next(module.children(), None) is None
        if type(module) is nn.Sequential:
            found += blocks(module)
        elif simple and found and next(found[-1][-1].children(), None) is None:
            found[-1].append(module)
        else:
            found.append([module])
    return found


def _run(chain: Sequence[tuple[list[nn.Module], list[Callable[..., Any]]]], x: Any) -> Any:
    for modules, layers in chain:
        if not torch.is_grad_enabled():
            x = _through(layers, x)
        elif torch.compiler.is_compiling():  # a compiled graph writes each statistic once
            x = checkpoint(_through, layers, x, use_reentrant=False)
        else:
            x = checkpoint(_through, layers, x, use_reentrant=False, context_fn=partial(_contexts, modules))
    return x


def _through(layers: Sequence[Callable[..., Any]], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _contexts(modules: list[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _on_copies(modules)


@contextmanager
def _on_copies(modules: list[nn.Module]) -> Iterator[None]:
    """A context in which ``modules`` have copies of their buffers, so that the originals are not updated."""
    own = [(part, dict(part._buffers)) for module in modules for part in module.modules() if part._buffers]
    for module, buffers in own:
        module._buffers = {name: None if x is None else x.clone() for name, x in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers = buffers
