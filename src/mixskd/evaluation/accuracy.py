"""How good a classifier is on a test set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.distributed import World
from mixskd.precision import autocast

if TYPE_CHECKING:
    from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

    from mixskd.methods.base import Method


@torch.inference_mode()
def evaluate_heads(
    method: Method,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    *,
    precision: str = "fp32",
    world: World | None = None,
) -> dict[str, float]:
    """``test_NAME_top1`` in per cent of every classifier in ``method``; ``test_max_head_top1``, the best of them."""
    was_training = method.training
    method.eval()
    correct: dict[str, Tensor] = {}
    count = 0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with autocast(device, precision):
            heads = method.heads(images)
        for name, logits in heads.items():
            hits = (logits.float().argmax(1) == labels).sum()
            correct[name] = correct[name] + hits if name in correct else hits
        count += len(labels)
    method.train(was_training)
    world = world or World()
    total = world.total(torch.tensor(count, device=device)).item()
    scores = {f"test_{name}_top1": 100 * world.total(hits).item() / total for name, hits in correct.items()}
    return {**scores, "test_max_head_top1": max(scores.values())}


@torch.inference_mode()
def evaluate_model(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    *,
    precision: str = "fp32",
    world: World | None = None,
) -> dict[str, float]:
    """``top1``, ``top5`` and ``ece`` in per cent, ``loss`` (mean cross-entropy) and the number ``images``.

    With several processes each gives its own part of the images, and gets the scores of all. The model is put in
    evaluation mode and back. Top-5 is top-N where there are fewer than five classes.
    """
    # Imported here: it takes a second, which a run's first step need not wait for.
    from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

    was_training = model.training
    model.eval()
    metrics: dict[str, MulticlassAccuracy | MulticlassCalibrationError] = {}
    loss, count = torch.zeros((), device=device), 0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with autocast(device, precision):
            logits = model(images)
        logits = logits.float()
        if not metrics:
            classes = logits.shape[1]
            metrics = {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, top_k=min(5, classes), average="micro"),
                "ece": MulticlassCalibrationError(classes, n_bins=15),
            }
            for metric in metrics.values():
                metric.to(device)
        for metric in metrics.values():
            metric.update(logits.softmax(1), labels)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        count += len(labels)
    model.train(was_training)
    world = world or World()
    # Over all processes; the metrics are fp32, and the digits beyond these are its rounding.
    scores = {name: round(100 * metric.compute().item(), 5) for name, metric in metrics.items()}
    total = int(world.total(torch.tensor(count, device=device)).item())
    return {**scores, "loss": world.total(loss).item() / total, "images": total}
