"""The suite ``errors``: the mistakes that a person should look at."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from msgspec import Struct
from torch import nn

from mixskd.config.records import Amount, Number, Text, Whole
from mixskd.config.types import Count, Settings
from mixskd.evaluation.base import Batches, Context, Outputs, percent, report
from mixskd.evaluation.stored_results import SuiteResult
from mixskd.evaluation.suites.accuracy import confusion_matrix


class Mistake(Struct):
    """An image whose prediction differs from its label."""

    index: Whole
    label: Text
    predicted: Text
    label_probability: Number
    predicted_probability: Number
    path: Text | None = None


class Pair(Struct):
    """Two classes, and how many images of one are predicted as the other."""

    label: Text
    predicted: Text
    images: Amount
    share_of_label: Number


class ErrorsResult(SuiteResult):
    """The stored result."""

    number_of_mistakes: Amount
    mistakes: list[Mistake]
    pairs: list[Pair]
    number_of_suspects: Amount
    suspects: list[Mistake]


@dataclass(frozen=True)
class Errors(Settings, prefix="errors."):
    """The most confident mistakes, the most confused pairs of classes, and labels that are likely wrong.

    Args:
        most: the largest number of entries in each list.
    """

    name: ClassVar[str] = "errors"
    about: ClassVar[str] = "the most confident mistakes, the most confused classes, likely wrong labels"
    Result: ClassVar[type] = ErrorsResult

    most: Count = 50

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``mistakes``, ``pairs`` and ``suspects``; an image is named by its place in the split, and its path if known.

        A suspect is an image whose label gets less than the class's mean probability, while another class gets at least
        the mean probability that its own images give it (confident learning, Northcutt et al., 2021).
        """
        outputs = context.outputs(model, data)
        predictions, labels = outputs.predictions, outputs.labels
        wrong = (predictions != labels).nonzero()[:, 0]
        sure = torch.cat([p.max(1).values for p, _ in outputs.in_parts()])[wrong]
        mistakes = wrong[sure.argsort(descending=True, stable=True)[: self.most]]
        suspects = likely_wrong(outputs)
        error = percent(len(wrong) / len(labels))
        return report(
            self, context, images=len(labels), headline=("error", error), higher_is_better=False,
            protocol="confidence is the softmax probability; suspects follow confident learning, the largest gap first",
            error=error, number_of_mistakes=len(wrong), number_of_suspects=len(suspects),
            mistakes=[entry(int(i), int(predictions[i]), outputs, context) for i in mistakes],
            pairs=confused(outputs, context)[: self.most],
            suspects=[entry(i, other, outputs, context) for i, other in suspects[: self.most]],
        )  # fmt: skip


def entry(index: int, other: int, outputs: Outputs, context: Context) -> dict[str, Any]:
    """One image: its place, path, label and ``other`` class with their probabilities."""
    label, p = int(outputs.labels[index]), outputs.logits[index].double().softmax(0)
    return {
        "index": index,
        "path": str(context.paths[index]) if context.paths else None,
        "label": context.class_name(label),
        "predicted": context.class_name(other),
        "label_probability": float(p[label]),
        "predicted_probability": float(p[other]),
    }


def confused(outputs: Outputs, context: Context) -> list[dict[str, Any]]:
    """Ordered pairs of classes by the number of images of the one that are called the other, most first."""
    confusion = confusion_matrix(outputs.labels, outputs.predictions, outputs.logits.shape[1])
    totals = confusion.sum(1)
    confusion.fill_diagonal_(0)
    order = confusion.flatten().argsort(descending=True, stable=True)
    pairs = []
    for cell in order.tolist():
        label, predicted = divmod(cell, len(totals))
        count = int(confusion[label, predicted])
        if not count:
            break
        share = percent(count / int(totals[label]))
        names = {"label": context.class_name(label), "predicted": context.class_name(predicted)}
        pairs.append({**names, "images": count, "share_of_label": share})
    return pairs


def likely_wrong(outputs: Outputs) -> list[tuple[int, int]]:
    """(image, likelier class) of likely wrong labels, by the gap between the two probabilities, largest first."""
    labels, classes = outputs.labels, outputs.logits.shape[1]
    own = torch.cat([p.gather(1, y[:, None])[:, 0] for p, y in outputs.in_parts()])
    counts = torch.bincount(labels, minlength=classes)
    threshold = torch.bincount(labels, own, minlength=classes) / counts.clamp(min=1)
    threshold[counts == 0] = torch.inf
    candidates = [p.masked_fill(p < threshold, -1.0).max(1) for p, _ in outputs.in_parts()]
    best, likelier = (torch.cat(part) for part in zip(*candidates, strict=True))
    suspect = ((best >= 0) & (likelier != labels) & (own < threshold[labels])).nonzero()[:, 0]
    gap = (best - own)[suspect]
    order = suspect[gap.argsort(descending=True, stable=True)].tolist()
    return [(i, int(likelier[i])) for i in order]
