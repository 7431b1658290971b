"""The suite ``ood``: can a classifier's scores tell images of another data set from its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor, nn

from mixskd.config.records import Amount, Number, Text
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches, Context, percent, report
from mixskd.evaluation.stored_results import SuiteResult


class Detection(Struct):
    """How well a score separates other data from the classifier's own."""

    auroc: Number
    fpr95: Number


class OodResult(SuiteResult):
    """The stored result."""

    other_data: Text
    other_images: Amount
    max_softmax: Detection
    energy: Detection


@dataclass(frozen=True)
class Ood:
    """AUROC and FPR95 of the largest softmax (Hendrycks and Gimpel, 2017) and of the energy (Liu et al., 2020).

    Args:
        data: the other data set; it takes the same values as ``--data``.
    """

    name: ClassVar[str] = "ood"
    about: ClassVar[str] = "AUROC and FPR95 of maximum softmax and energy against another data set (--ood.data)"
    Result: ClassVar[type] = OodResult

    data: str = ""

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """For each score ``auroc`` and ``fpr95`` in per cent, own images positive.

        Raises UserError without another data set.
        """
        other = context.other_data.get("test")
        if other is None:
            raise UserError("the suite ood needs another data set; name one with --ood.data")
        own = context.outputs(model, data, 0, 2).logits
        logits = []
        with torch.inference_mode():  # their labels are not this model's, so they are not checked
            for images, _ in context.batches(other, 1, 2):
                logits.append(model(images).float().cpu())
        theirs = torch.cat(logits)
        softmax, energy = (separation(score(own), score(theirs)) for score in (max_softmax, energy_score))
        return report(
            self, context, images=len(own), headline=("auroc", softmax["auroc"]),
            protocol="own images are positive; FPR95 is the share of foreign images whose score is at or above the one "
            "that 95 % of the own images reach; energy is log-sum-exp of the logits at temperature 1",
            other_data=context.other_name, other_images=len(theirs), max_softmax=softmax, energy=energy,
        )  # fmt: skip


def max_softmax(logits: Tensor) -> Tensor:
    """The logarithm of the largest probability: it orders images as the probability does, without ties at 1."""
    return logits.double().log_softmax(1).max(1).values


def energy_score(logits: Tensor) -> Tensor:
    """The negative energy at temperature 1."""
    return logits.double().logsumexp(1)


def separation(own: Tensor, other: Tensor) -> dict[str, float]:
    """``auroc`` and ``fpr95`` in per cent of scores that should be higher for ``own`` images than for ``other``."""
    from sklearn.metrics import roc_auc_score

    truth = np.r_[np.ones(len(own)), np.zeros(len(other))]
    ordered = own.sort(descending=True).values
    threshold = ordered[-(-95 * len(own) // 100) - 1]
    auroc = roc_auc_score(truth, torch.cat([own, other]).numpy())
    return {"auroc": percent(auroc), "fpr95": percent((other >= threshold).double().mean())}
