"""Checks of the images and labels that a method is called with, before anything is computed from them."""

from typing import Any

import torch
from torch import Tensor, nn

from mixskd.errors import UserError


def check_call(method: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A hook before the forward pass of a ``method`` that is called as ``method(images, labels, ...)``."""
    arguments = {**dict(zip(("images", "labels", "draws"), given, strict=False)), **named}
    images, labels, draws = map(arguments.get, ("images", "labels", "draws"))
    if ("images" in named or given) and not torch.compiler.is_compiling():
        check_images(images, method.backbone)  # type: ignore[arg-type]
        if draws is not None and not isinstance(draws, tuple):
            raise UserError(f"draws must be what method.draw(images) returns, not {type(draws).__name__}")
    if images is not None and labels is not None:  # Python names what is missing
        soft, several = method.soft_labels, method.ce.several  # type: ignore[union-attr]
        check_labels(labels, len(images), method.backbone.num_classes, soft=soft, several=several)  # type: ignore[union-attr, arg-type]


def check_images(images: Any, backbone: nn.Module) -> None:
    """Raise UserError unless ``images`` are a batch ``B x C x H x W`` in the number type of the ``backbone``."""
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a tensor B x C x H x W, not {type(images).__name__}")
    weight = next((p for p in backbone.parameters() if p.ndim == 4), None)
    if images.ndim != 4 or (weight is not None and images.shape[1] != weight.shape[1]):
        channels = "C" if weight is None else weight.shape[1]
        raise UserError(f"images must be of shape B x {channels} x H x W, not {tuple(images.shape)}")
    if not images.is_floating_point() or (
        images.dtype == torch.float64 and weight is not None and weight.dtype != torch.float64
    ):
        wanted = "floating point" if weight is None else weight.dtype
        raise UserError(f"images must be normalised numbers of {wanted}, not {images.dtype}")


def check_labels(labels: Tensor, images: int, classes: int, *, soft: bool = False, several: bool = False) -> None:
    """Raise UserError unless ``labels`` are class indices (``B``) or, if ``soft``, probabilities (``B x N``).

    If an image may have ``several`` labels, they must be floating-point numbers from 0 to 1 (``B x N``).

    The values are read only on a CPU, because the host would wait for a GPU, and not in a step that is compiled or
    transformed by ``torch.func``.
    """
    if not isinstance(labels, Tensor):
        raise UserError(f"labels must be a tensor of class indices, not {type(labels).__name__}")
    probabilities = (soft or several) and labels.is_floating_point() and labels.shape == (images, classes)
    if several and not probabilities:
        raise UserError(
            f"labels must be numbers from 0 to 1, one for each class: floating point of shape ({images}, {classes}), "
            f"not {labels.dtype} of shape {tuple(labels.shape)}"
        )
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
    if several and (low < 0 or high > 1):
        raise UserError(f"labels must be from 0 to 1, since an image may have several; these are from {low} to {high}")
    if probabilities and not several and (low < 0 or abs(values.sum(1) - 1).max() > 0.02):
        raise UserError("labels of shape B x N must be probabilities: 0 or above, with a sum of 1 for each image")
    if low < 0 or high >= classes:
        raise UserError(f"labels must be from 0 to {classes - 1}, since the network has {classes} classes; "
                        f"these are from {low} to {high}")  # fmt: skip


def _advice(labels: Tensor, images: int, classes: int) -> str:
    if labels.shape == (images, classes):
        return "; this method takes no probabilities: give labels.argmax(1)"
    return "; give labels.long()" if labels.shape == (images,) else ""
