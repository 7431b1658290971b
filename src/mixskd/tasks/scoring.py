"""The scores of a model on one split: in fp32, so that all reports agree, unless a caller asks for less."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.runtime.distributed import World
from mixskd.runtime.precision import full_fp32
from mixskd.tasks.base import Task


@contextmanager
def evaluation_mode(model: nn.Module, arithmetic: AbstractContextManager[Any] | None = None) -> Iterator[None]:
    """Context with ``model`` in evaluation mode and in ``arithmetic``: fp32 without TF32 if None.

    Both are restored at its end.
    """
    was_training = model.training
    model.eval()
    try:
        with arithmetic or full_fp32():
            yield
    finally:
        model.train(was_training)


def score(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    task: Task,
    device: torch.device,
    arithmetic: AbstractContextManager[Any] | None = None,
) -> dict[str, float]:
    """The scores of ``task`` for ``model`` on the batches of ``loader``, in ``arithmetic``: fp32 without TF32 if None.

    With several processes each gives its own part of the images, which may be none, and gets the scores of all.
    """
    return task.scores(metric_values(model, loader, task, device, arithmetic))


@torch.inference_mode()
def metric_values(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    task: Task,
    device: torch.device,
    arithmetic: AbstractContextManager[Any] | None = None,
) -> dict[str, Any]:
    """What the metrics of ``task`` compute, as :func:`score`."""
    metrics = task.metrics().to(device)
    with evaluation_mode(model, arithmetic):
        for images, targets in loader:
            if len(targets):
                metrics.update(task.predict(model, on(device, images)), on(device, targets))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update``")  # a process without images
        return metrics.compute()


@torch.inference_mode()
def score_heads(
    method: Any,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    *,
    split: str = "test",
    world: World | None = None,
    arithmetic: AbstractContextManager[Any] | None = None,
) -> dict[str, float]:
    """``SPLIT_NAME_top1`` in per cent of each of ``method.heads``, and the best as ``SPLIT_max_head_top1``."""
    correct: dict[str, Tensor] = {}
    count = 0
    with evaluation_mode(method, arithmetic):
        for images, labels in loader:
            for name, logits in method.heads(on(device, images)).items():
                hits = (logits.float().argmax(1) == on(device, labels)).sum()
                correct[name] = correct[name] + hits if name in correct else hits
            count += len(labels)
    world = world or World()
    total = world.total(torch.tensor(count, device=device)).item()
    scores = {f"{split}_{name}_top1": 100 * world.total(hits).item() / total for name, hits in correct.items()}
    return {**scores, f"{split}_max_head_top1": max(scores.values())}


def on(device: torch.device, value: Any) -> Any:
    """Tensors, and those in lists and dictionaries, on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: on(device, item) for key, item in value.items()}
    return [on(device, item) for item in value] if isinstance(value, list | tuple) else value
