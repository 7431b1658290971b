"""What every export gets, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mixskd.artifacts.model_file import Classifier
from mixskd.deploy.exports.formats import Options

Answer = Callable[[Tensor], Tensor]
"""The written file at work: from images, as the file takes them, to its logits or probabilities ``B x N``."""


@dataclass(frozen=True)
class Job:
    """One export.

    Args:
        model: the classifier.
        source: the run folder or file that it is from.
        target: where to write.
        suffix: of the file that ``target`` becomes.
        options: of a graph.
        temperature: of its softmax.
        training_images: gives uint8 images ``N x 3 x H x W`` of the training split. Raises UserError if there are none.
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
    """What an export left: the file at work, if it is a classifier, and what stands in the JSON beside it, if any."""

    answer: Answer | None
    beside: dict[str, Any] | None = None
