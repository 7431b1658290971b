"""Input and result of every export format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mixskd.artifacts.model_file import Classifier
from mixskd.deploy.exports.formats import Options

Answer = Callable[[Tensor], Tensor]
"""The reloaded copy: maps its input images to logits or probabilities ``B x N``."""


@dataclass(frozen=True)
class Job:
    """One export.

    Args:
        model: the classifier.
        source: the run folder or file of the classifier.
        target: the file to write.
        suffix: the suffix of the file to which ``target`` is renamed.
        options: the options of a graph.
        temperature: the temperature of its softmax.
        training_images: returns preprocessed training images ``N x C x H x W``. Raises UserError without any.
    """

    model: Classifier
    source: Path
    target: Path
    suffix: str
    options: Options
    temperature: float | None
    training_images: Callable[[], Tensor]


@dataclass(frozen=True)
class Written:
    """Result: the reloaded classifier, if any, and the content of the JSON file beside it, if any."""

    answer: Answer | None
    beside: dict[str, Any] | None = None
