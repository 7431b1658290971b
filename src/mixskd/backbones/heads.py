"""Classifiers on pooled features, as the heads of backbones and branches: they compute without autocast."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mixskd.errors import UserError


def exact(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``x``. On the meta device, which has no autocast, it does nothing."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class Head(nn.Linear):
    """A linear layer that computes in the type of its weights, for inputs of any type and despite autocast."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Head:
        """A Head with the parameters of ``linear``."""
        with torch.device("meta"):
            head = cls(linear.in_features, linear.out_features)
        head.weight, head.bias = linear.weight, linear.bias
        return head

    def forward(self, x: Tensor) -> Tensor:
        with exact(x):
            return super().forward(x.to(self.weight.dtype))


class DeepHead(nn.Module):
    """A classifier of several layers (norm, convolution, bottleneck) that computes in the type of its weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with exact(x):
            return self.module(as_weights(x, self.module))


def as_weights(x: Tensor, module: nn.Module) -> Tensor:
    """``x`` in the type of the module's weights; in fp32 or wider if it has none."""
    weight = next(module.parameters(), None)
    return x.to(torch.promote_types(x.dtype, torch.float32) if weight is None else weight.dtype)


def split_head(head: nn.Module, user: str) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    """The layers of a head before the last one, and the last one.

    Raises UserError if it is not linear; ``user`` is what needs it.
    """
    module = head.module if isinstance(head, DeepHead) else head
    if isinstance(module, nn.Linear):
        return nn.Identity(), module
    if isinstance(module, nn.Sequential) and len(module) and isinstance(module[-1], nn.Linear):
        return module[:-1], module[-1]
    if callable(own := getattr(module, "split", None)) and (parts := own()) is not None:
        return parts
    raise UserError(f"{user} needs a linear layer at the end of the classifier; take another backbone")


def as_head(module: nn.Module) -> Head | DeepHead:
    """``module``, from pooled features to logits, as a classifier that computes without autocast."""
    return Head.of(module) if isinstance(module, nn.Linear) else DeepHead(module)
