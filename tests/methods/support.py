"""What the tests of methods share: inputs that a method asks for, and a check of a loss with its gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixskd.backbones import StagedBackbone
from mixskd.data.needs import DataNeeds
from mixskd.methods import METHODS, Method


def options_of(name: str, teacher: str = "a trained baseline") -> dict[str, Any]:
    """The options without which the method ``name`` cannot be prepared."""
    return {"teacher": teacher} if METHODS[name].taught_by else {}


def make(name: str, backbone: StagedBackbone, num_images: int = 8, **options: Any) -> Method:
    """The method ``name``, prepared; a teacher is a copy of ``backbone``."""
    method = METHODS[name](backbone, **options_of(name), **options).to(next(backbone.parameters()).dtype)
    method.prepare(num_images, lambda path: copy.deepcopy(backbone))
    method.prepare_batch(num_images)
    return method


def extras(needs: DataNeeds, images: Tensor) -> dict[str, Tensor]:
    """Random inputs for all that ``needs`` asks for."""
    given: dict[str, Tensor] = {}
    if needs.views > 1:
        given["views"] = torch.randn(len(images), needs.views - 1, *images.shape[1:], dtype=images.dtype)
    if needs.partners:
        given["partners"] = torch.randn(len(images), needs.partners, *images.shape[1:], dtype=images.dtype)
    if needs.slots:
        given["slots"] = torch.arange(len(images))
    if needs.indices:
        given["indices"] = torch.randperm(len(images))
    if needs.progress:
        given["progress"] = torch.tensor(0.5)
    return given


def batch(count: int = 4, size: int = 8, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Images in float64 and labels."""
    return torch.randn(count, 3, size, size, dtype=torch.float64), torch.randint(classes, (count,))


def features(backbone: StagedBackbone, images: Tensor) -> Tensor:
    """The pooled last map, ``B x C``."""
    for stage in backbone.stages:
        images = stage(images)
    return images.flatten(2).sum(2) / (images.shape[2] * images.shape[3])


def logits(backbone: StagedBackbone, images: Tensor) -> Tensor:
    return features(backbone, images) @ backbone.head.weight.T + backbone.head.bias


def check(method: Method, reference: Callable[[Any, Any], float], *args: Any, **extra: Tensor) -> dict[str, Tensor]:
    """The loss equals ``reference(m, m)``, and its slope that of ``reference(moving, fixed)`` along random directions.

    ``reference`` computes what is detached from ``fixed``, which keeps its weights, and all else from ``moving``.
    """
    fixed = copy.deepcopy(method)
    out = method(*args, **extra)
    with torch.no_grad():
        assert out["loss"].item() == pytest.approx(reference(fixed, fixed), rel=1e-9, abs=1e-12)
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(out["loss"], list(parameters.values()), allow_unused=True)
    for _ in range(2):
        directions = {name: torch.randn_like(p) for name, p in parameters.items()}
        slope = sum(
            float((g * directions[name]).sum()) for name, g in zip(parameters, gradients, strict=True) if g is not None
        )
        values = []
        for eps in (1e-7, -1e-7):  # so small that no ReLU changes sides
            moving = copy.deepcopy(fixed)
            with torch.no_grad():
                for name, p in moving.named_parameters():
                    if name in directions:
                        p += eps * directions[name]
                values.append(reference(moving, fixed))
        assert slope == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-5, abs=1e-6)
    return out
