"""The suite ``accuracy``: how often the classifier is right, over all images and class by class."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from mixskd.config.records import Amount, Number, Numbers, Text
from mixskd.evaluation.base import Batches, Context, percent, report
from mixskd.evaluation.label_accuracy import label_accuracy
from mixskd.evaluation.stored_results import SuiteResult


class ClassScores(Struct):
    """The scores of one class."""

    name: Text
    recall: Number
    precision: Number
    f1: Number
    images: Amount


class AccuracyResult(SuiteResult):
    """The stored result."""

    classes: Annotated[list[ClassScores], Meta(min_length=1)]
    confusion: Annotated[list[Numbers], Meta(min_length=1)] | None = None
    map: Number | None = None  # of several labels an image, which have no confusion

    def __post_init__(self) -> None:
        classes = len(self.classes)
        if self.confusion is None:
            if self.map is None:
                raise ValueError("it lacks confusion")
            return
        if len(self.confusion) != classes or any(len(row) != classes for row in self.confusion):
            raise ValueError(f"confusion must have {classes} rows and columns, as there are classes")


@dataclass(frozen=True)
class Accuracy:
    """Top-1, top-5, balanced accuracy, macro F1; precision, recall and F1 of each class; the confusion matrix.

    Where an image may have several labels: mean average precision, and F1 of each class and of all together.

    Args:
        top: the k of the second accuracy; the number of classes if there are fewer.
    """

    name: ClassVar[str] = "accuracy"
    about: ClassVar[str] = "top-1, top-5, each class's precision, recall and F1, and the confusion matrix"
    Result: ClassVar[type] = AccuracyResult

    top: int = 5

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """Accuracies in per cent; ``confusion[i][j]`` is how many images of class i were called j."""
        outputs = context.outputs(model, data)
        if context.thresholds:
            return label_accuracy(self, outputs, context)
        logits, labels = outputs.logits, outputs.labels
        classes = logits.shape[1]
        confusion = confusion_matrix(labels, outputs.predictions, classes)
        k = min(self.top, classes)
        in_top = (logits.topk(k).indices == labels[:, None]).any(1)
        top1 = percent(confusion.diagonal().sum() / confusion.sum())
        rows = per_class(confusion)
        present = [row for row in rows if row["images"]]
        result = report(
            self, context, images=len(labels), headline=("top1", top1),
            protocol="arg max of the logits against the label; balanced accuracy is the mean recall of the classes "
            "that have images",
            top1=top1,
            balanced_accuracy=sum(row["recall"] for row in present) / len(present),
            macro_f1=sum(row["f1"] for row in present) / len(present),
            classes=[{"name": context.class_name(i), **row} for i, row in enumerate(rows)],
            confusion=confusion.tolist(),
        )  # fmt: skip
        return {**result, f"top{k}": percent(in_top.double().mean())}


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts ``classes x classes``: rows are labels, columns are predictions."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def per_class(confusion: Tensor) -> list[dict[str, Any]]:
    """``precision``, ``recall`` and ``f1`` in per cent, and ``images``, of each class; 0 where one is undefined."""
    hits = confusion.diagonal().double()
    precision = hits / confusion.sum(0).clamp(min=1)
    recall = hits / confusion.sum(1).clamp(min=1)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    columns = zip(precision.tolist(), recall.tolist(), f1.tolist(), confusion.sum(1).tolist(), strict=True)
    return [{"precision": 100 * p, "recall": 100 * r, "f1": 100 * f, "images": n} for p, r, f, n in columns]
