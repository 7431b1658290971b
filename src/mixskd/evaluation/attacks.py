"""What white-box attacks share: the gradient of the loss by the image, and the space in which steps are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.config.records import Amount, Number, Text
from mixskd.config.types import NotNegative
from mixskd.evaluation.base import Context
from mixskd.evaluation.stored_results import SuiteResult

SpaceName = Literal["pixel", "normalised"]
Epsilons = Annotated[tuple[NotNegative, ...], Meta(min_length=1)]


class AttackScore(Struct):
    """Top-1 under an attack of one size."""

    epsilon: Amount
    top1: Number


class AttackResult(SuiteResult):
    """The stored result."""

    clean_top1: Number
    protocol: dict[Text, Any]
    attacks: Annotated[list[AttackScore], Meta(min_length=1)]


@dataclass(frozen=True)
class Space:
    """Where a perturbation is measured: ``pixel`` (0 to 1, clipped there) or ``normalised`` (the input of the net)."""

    name: str
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, name: str, context: Context) -> Space:
        """The space ``name`` for images that are normalised as ``context`` says."""
        mean, std = (
            torch.tensor(list(v), device=context.device).reshape(-1, 1, 1) for v in (context.mean, context.std)
        )
        return cls(name, mean, std)

    def enter(self, images: Tensor) -> Tensor:
        """Normalised images in this space."""
        return images if self.name == "normalised" else images * self.std + self.mean

    def leave(self, images: Tensor) -> Tensor:
        """Images of this space, normalised."""
        return images if self.name == "normalised" else (images - self.mean) / self.std

    def clip(self, images: Tensor) -> Tensor:
        """Pixels back into 0 to 1; normalised images stay as they are."""
        return images if self.name == "normalised" else images.clamp(0, 1)


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each image's cross-entropy by its normalised values, and the logits, both without a graph.

    Its sign is also that of the gradient by pixels, since a standard deviation is positive.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return gradient, logits.detach()
