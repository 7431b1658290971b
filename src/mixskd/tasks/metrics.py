"""The metrics of classifiers that torchmetrics does not have. They are imported when something is scored."""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score
from torchmetrics.utilities import dim_zero_cat

from mixskd.tasks.thresholds import best_threshold


def label_scores(p: Tensor, labels: Tensor, thresholds: Tensor) -> dict[str, Tensor]:
    """Of probabilities and labels ``N x C``: ``ap`` and ``class_f1`` by class, and their means ``map``, ``f1_macro``,
    over the classes that an image has; ``f1`` over all labels of all images together (micro).

    A label is predicted where its probability is not below its class's threshold.
    """
    classes, seen = p.shape[1], labels.sum(0) > 0
    predicted = (p >= thresholds.to(p)).long()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive samples")
        ap = multilabel_average_precision(p, labels, classes, average="none").to(p.dtype)
    by_class = multilabel_f1_score(predicted, labels, classes, average="none")
    return {
        "ap": ap,
        "class_f1": by_class,
        "map": ap[seen].mean(),
        "f1_macro": by_class[seen].mean(),
        "f1": multilabel_f1_score(predicted, labels, classes, average="micro"),
    }


def binary_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The binary cross-entropy of ``N x C``, summed over the classes, its mean over the images."""
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(1).mean()


class MeanCrossEntropy(Metric):
    """The mean softmax cross-entropy of logits ``B x N`` with class indices ``B``."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.total += F.cross_entropy(logits, labels, reduction="sum")
        self.count += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.count


class LabelScores(Metric):
    """Mean average precision, F1 and loss of logits with labels of 0 and 1 (``B x C`` each), and the best thresholds.

    ``thresholds`` (``C``) are those at which F1 is computed. A class that no image has takes no part in the means over
    classes.
    """

    thresholds: Tensor
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__()
        self.register_buffer("thresholds", thresholds, persistent=False)
        # As vectors: a process without images adds an empty one.
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.logits.append(logits.flatten())
        self.labels.append(labels.to(logits.dtype).flatten())

    def compute(self) -> dict[str, Tensor]:
        classes = len(self.thresholds)
        z, y = (dim_zero_cat(x).view(-1, classes).double() for x in (self.logits, self.labels))
        p, y = z.sigmoid(), y.long()
        return {
            **label_scores(p, y, self.thresholds),
            "loss": binary_entropy(z, y),
            "best_thresholds": torch.tensor(
                [best_threshold(*column) for column in zip(p.T, y.T, strict=True)], dtype=torch.float64
            ),
        }
