"""The kinds of tasks beside one label an image: their verbs, networks and scores. It imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Args:
        name: ``detection``, ``segmentation`` or ``multilabel``, which is trained by ``train`` and every method.
        verb: of the command line; empty for ``multilabel``, as are the next two.
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
MULTILABEL = Kind("multilabel", "", (), "", {"map": "mAP", "f1": "F1", "f1_macro": "mean F1 of the classes"}, 2)
KINDS = (MULTILABEL, DETECTION, SEGMENTATION)
BY_VERB = {kind.verb: kind for kind in KINDS if kind.verb}


class Score(NamedTuple):
    """The ``name`` of a score in summaries, and its ``title`` for a person; it is in per cent."""

    name: str
    title: str


def monitor_of(kind: Kind | None) -> Score:
    """The score that selects the weights; ``kind`` is as that of :func:`kind_of`."""
    return Score("top1", "top-1") if kind is None else Score(kind.monitor, kind.scores[kind.monitor])


def kind_of(network: str, task: str | None = None) -> Kind | None:
    """The kind of task of a run whose ``method.name`` is ``network`` and whose summary names ``task``; None for one
    label an image.
    """
    return next((kind for kind in KINDS if network in kind.networks or task == kind.name), None)
