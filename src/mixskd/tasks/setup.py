"""The parts of a run that depend on the task: data, network, method, loaders, scores and the model file."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixskd.config import OptimConfig
from mixskd.data import DataBundle
from mixskd.tasks.base import Task


@dataclass(frozen=True)
class Sample:
    """The computation for which the precision is measured: ``outputs`` of ``network`` for images ``B x C x H x W``."""

    name: str
    network: nn.Module
    outputs: Callable[[Any, Tensor], Iterable[Tensor]]
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class TaskSetup:
    """The parts of a run that differ from task to task.

    Args:
        method: turns a batch into named losses; it holds the backbone.
        make_loader: the training batches of the method, which may be replaced by one with synchronised norms.
        score_loaders: batches of images and targets of each split but ``train``, by its name.
        save: writes the deployed network to a file.
        sample: the computation for which the precision is measured.
        notes: what a person should know before the run begins.
        optim: the settings of the optimizer if the task changed them, as the rate for its batch size.
    """

    data: DataBundle
    task: Task
    method: Any
    make_loader: Callable[[], Any]
    score_loaders: Mapping[str, Any]
    save: Callable[[Any, Path], None]
    sample: Sample
    notes: tuple[str, ...] = ()
    optim: OptimConfig | None = None
