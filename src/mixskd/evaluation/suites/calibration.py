"""The suite ``calibration``: do probabilities agree with accuracy (Guo et al., 2017; Nixon et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from msgspec import Struct
from torch import nn

from mixskd.config.records import Amount, Number, Text
from mixskd.config.types import Count, Settings
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches, Context, Outputs, report
from mixskd.evaluation.calibration_error import calibration
from mixskd.evaluation.stored_results import SuiteResult
from mixskd.tasks.temperature import best_temperature


class Bin(Struct):
    """A bin of a reliability diagram."""

    images: Amount
    confidence: Number | None
    accuracy: Number | None

    def __post_init__(self) -> None:
        if self.images and None in (self.confidence, self.accuracy):
            raise ValueError("a bin with images lacks their confidence or accuracy")


class Reliability(Struct):
    """The calibration error and its diagram."""

    ece: Number
    reliability: list[Bin]


class WholeSplit(Reliability):
    """All measures of calibration."""

    adaptive_ece: Number
    brier: Number
    nll: Number


class CalibrationResult(SuiteResult):
    """The stored result."""

    whole: WholeSplit
    before: Reliability
    after: Reliability
    temperature: Number
    fitted_on: Text


@dataclass(frozen=True)
class Calibration(Settings, prefix="calibration."):
    """ECE, adaptive ECE, Brier score, negative log-likelihood and reliability, before and after temperature scaling.

    Args:
        bins: the number of bins of the confidence.
        fit: where the temperature is fitted: ``val``; ``half``, a seeded random half of the split, and ``before`` and
            ``after`` then describe the other half; or ``auto``, which is ``val`` if there is one, else ``half``.
    """

    name: ClassVar[str] = "calibration"
    about: ClassVar[str] = "ECE, adaptive ECE, Brier, NLL and reliability, before and after temperature scaling"
    Result: ClassVar[type] = CalibrationResult

    bins: Count = 15
    fit: Literal["auto", "val", "half"] = "auto"

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``whole``, ``before`` and ``after`` (see :func:`calibration`), and the ``temperature``.

        Raises UserError for ``fit = val`` without a validation split.
        """
        if self.fit == "val" and context.val is None:
            raise UserError("calibration.fit val needs a validation split, and the data have none; use half")
        on_val = context.val is not None and self.fit != "half"
        outputs = context.outputs(model, data, 0, 2 if on_val else 1)
        if on_val:
            assert context.val is not None
            fitted, reported = context.outputs(model, context.val, 1, 2), outputs
        else:
            fitted, reported = halves(outputs, context.generator())
        temperature = best_temperature(fitted.logits, fitted.labels)
        whole = calibration(outputs.logits, outputs.labels, self.bins)
        return report(
            self, context, images=len(outputs.labels), headline=("ece", whole["ece"]), higher_is_better=False,
            protocol="confidence is the largest softmax probability; ECE and adaptive ECE are L1 over "
            f"{self.bins} bins of equal width and of equal count; one temperature minimises the NLL of "
            + ("the validation split" if on_val else "a seeded random half of the split"),
            fitted_on="val" if on_val else f"half of {context.split}", fitted_images=len(fitted.labels),
            reported_images=len(reported.labels), temperature=temperature, whole=whole,
            before=calibration(reported.logits, reported.labels, self.bins),
            after=calibration(reported.logits.double() / temperature, reported.labels, self.bins),
        )  # fmt: skip


def halves(outputs: Outputs, generator: torch.Generator) -> tuple[Outputs, Outputs]:
    """A random half to fit on, and the other. Raises UserError for fewer than two images."""
    if len(outputs.labels) < 2:
        raise UserError("calibration needs two or more images to fit a temperature on one half")
    order = torch.randperm(len(outputs.labels), generator=generator)
    parts = order.tensor_split(2)
    first, second = (Outputs(outputs.logits[part], outputs.labels[part]) for part in parts)
    return first, second
