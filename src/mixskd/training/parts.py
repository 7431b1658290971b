"""``Parts``: everything that a trainer, a benchmark or a dry run needs of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.config import Experiment
from mixskd.data import DataBundle
from mixskd.runtime.distributed import World
from mixskd.tasks.base import Task
from mixskd.training.step import TrainStep


@dataclass(frozen=True)
class Examples:
    """Columns of normalised images (``B x 3 x H x W``) with their true and predicted classes.

    Args:
        columns: images and a text for each, by the title of the column.
        mean: of the normalisation.
        std: of the normalisation.
    """

    columns: dict[str, tuple[Tensor, list[str]]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass
class Parts:
    """The parts of a run.

    Args:
        experiment: its settings.
        world: this process among all.
        device: the device of the step.
        data: the images by split.
        task: how predictions are scored.
        step: the method with its optimizer and the moving average of its weights.
        loader: the training batches; ``loader.epoch(e, start)`` are those of an epoch.
        score_loaders: batches of images and targets of each split but ``train``, by its name.
        save_network: writes the deployed network to a file.
        notes: warnings for a person before the run starts.
        examples: computes a few images and mixes with their predictions; None for tasks without classes.
        probe: what simple classifiers reach on the frozen features of the start; None if that was not measured.
    """

    experiment: Experiment
    world: World
    device: torch.device
    data: DataBundle
    task: Task
    step: TrainStep
    loader: Any
    score_loaders: Mapping[str, Any]
    save_network: Callable[[nn.Module, Path], None]
    notes: list[str] = field(default_factory=list)
    examples: Callable[[], Examples] | None = None
    probe: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write the deployed network to ``path``. Raises UserError on a full disk."""
        self.save_network(self.deployed, path)

    @property
    def deployed(self) -> Any:
        """The network that is evaluated and saved: the backbone, or its moving average."""
        ema = self.step.ema
        return ema.module if ema is not None else self.step.method.backbone
