"""The kinds of tasks beside classification: their verbs, networks and scores. It imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Args:
        name: ``detection`` or ``segmentation``.
        verb: of the command line.
        networks: values of ``method.name``; the first is the usual one.
        recipe: the usual one.
        scores: from a score's name in a summary to its name for a person; the first selects the weights.
        shown: how many of them a line on the terminal shows.
    """

    name: str
    verb: str
    networks: tuple[str, ...]
    recipe: str
    scores: Mapping[str, str]
    shown: int

    @property
    def monitor(self) -> str:
        """The score that selects the weights."""
        return next(iter(self.scores))

    def line(self, scores: Mapping[str, object]) -> str:
        """The first scores, which are in per cent, for a person."""
        first = list(self.scores.items())[: self.shown]
        return "  ".join(f"{text} {scores[name]:.2f} %" for name, text in first if scores.get(name) is not None)


DETECTION = Kind(
    "detection", "detect", ("cascade_rcnn", "faster_rcnn"), "detect_coco",
    {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium",
     "ap_large": "AP large"}, 3,
)  # fmt: skip
SEGMENTATION = Kind(
    "segmentation", "segment", ("deeplabv3",), "segment_voc",
    {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "miou_released": "mIoU as released"}, 2,
)  # fmt: skip
KINDS = (DETECTION, SEGMENTATION)
BY_VERB = {kind.verb: kind for kind in KINDS}


def kind_of(network: str) -> Kind | None:
    """The kind of task of a run whose ``method.name`` is ``network``; None for a classifier's."""
    return next((kind for kind in KINDS if network in kind.networks), None)
