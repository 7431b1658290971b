"""The common interface of detection and segmentation: loading, batches, scores, predictions, drawings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from mixskd.config.data import DataConfig
from mixskd.runtime.distributed import World
from mixskd.tasks.base import Task
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.pipeline import DetectionPipeline
from mixskd.transfer.segmentation.pipeline import SegmentationPipeline


class DetailedTask(Task, Protocol):
    """A task with scores of each class."""

    def details(self, values: Mapping[str, Any]) -> dict[str, Any]: ...


class Pipeline(Protocol):
    """How annotated images become batches, scores, predictions and drawings.

    :class:`DetectionPipeline` and :class:`SegmentationPipeline` document the methods. A split is what ``load`` gives,
    and what ``find`` gives for an image is passed to ``entries``, ``draw`` and ``save_found``.
    """

    config: Any
    image_size: int
    endings: tuple[str, ...]  # of the files that ``predict`` writes for an image

    def load(self, source: str, data: DataConfig) -> Mapping[str, Any]: ...
    def training(self, split: Any, *, flip: bool) -> tuple[Dataset[Any], Callable[[Any], Any]]: ...
    def scoring(self, split: Any) -> tuple[Dataset[Any], Callable[[Any], Any]]: ...
    def task(self, split: Any, world: World | None = None) -> DetailedTask: ...
    def find(self, model: nn.Module, images: Sequence[Image.Image]) -> list[Any]: ...
    def entries(self, found: Any, image_id: int, about: Any) -> list[dict[str, Any]]: ...
    def draw(self, image: Image.Image, found: Any, classes: Sequence[str], threshold: float) -> Image.Image: ...
    def draw_truth(self, image: Image.Image, split: Any, index: int) -> Image.Image: ...
    def save_found(self, found: Any, classes: Sequence[str], stem: Path) -> None: ...


def pipeline_of(config: Any, mean: Sequence[float], std: Sequence[float]) -> Pipeline:
    """The pipeline of a network of ``config`` whose images are normalised by ``mean`` and ``std``."""
    kind: Any = DetectionPipeline if isinstance(config, DetectorConfig) else SegmentationPipeline
    made: Pipeline = kind(config, mean, std)
    return made
