"""Check of the labels that a method is called with, before anything is computed from them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mixskd.errors import UserError


def check_call(method: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Forward pre-hook of a ``method`` that is called as ``method(images, labels, ...)``: check its labels."""
    images = given[0] if given else named.get("images")
    labels = given[1] if len(given) > 1 else named.get("labels")
    if images is not None and labels is not None:  # Python itself names a missing argument
        check_labels(labels, len(images), method.backbone.num_classes, soft=method.soft_labels)  # type: ignore[union-attr, arg-type]


def check_labels(labels: Tensor, images: int, classes: int, *, soft: bool = False) -> None:
    """Raise UserError unless ``labels`` are class indices (``B``) or, if ``soft``, probabilities (``B x N``).

    The values are read only on a CPU, because the host would wait for a GPU, and not in a step that is compiled or
    transformed by ``torch.func``.
    """
    if not isinstance(labels, Tensor):
        raise UserError(f"labels must be a tensor of class indices, not {type(labels).__name__}")
    probabilities = soft and labels.is_floating_point() and labels.shape == (images, classes)
    if not probabilities and (labels.dtype != torch.int64 or labels.shape != (images,)):
        raise UserError(
            f"labels must be class indices: torch.int64 of shape ({images},), "
            f"not {labels.dtype} of shape {tuple(labels.shape)}{_advice(labels, images, classes)}"
        )
    if torch.compiler.is_compiling() or type(labels) is not Tensor or labels.device.type != "cpu" or not images:
        return
    try:
        values = labels.detach().double().numpy() if probabilities else labels.numpy()
    except RuntimeError:  # a tensor of torch.func has no storage
        return
    low, high = values.min(), values.max()
    if probabilities and (low < 0 or abs(values.sum(1) - 1).max() > 0.02):
        raise UserError("labels of shape B x N must be probabilities: 0 or above, with a sum of 1 for each image")
    if low < 0 or high >= classes:
        raise UserError(f"labels must be from 0 to {classes - 1}, since the network has {classes} classes; "
                        f"these are from {low} to {high}")  # fmt: skip


def _advice(labels: Tensor, images: int, classes: int) -> str:
    if labels.shape == (images, classes):
        return "; this method takes no probabilities: give labels.argmax(1)"
    return "; give labels.long()" if labels.shape == (images,) else ""
