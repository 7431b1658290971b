"""The suite ``calibration``: do probabilities agree with accuracy (Guo et al., 2017; Nixon et al., 2019)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor, nn

from mixskd.config.records import Amount, Number, Text
from mixskd.config.types import Count, Settings
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches, Context, Outputs, percent, report
from mixskd.evaluation.stored_results import SuiteResult
from mixskd.tasks.temperature_scaling import best_temperature


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


def calibration(logits: Tensor, labels: Tensor, bins: int) -> dict[str, Any]:
    """Of logits ``N x C``: ``ece`` and ``adaptive_ece`` in per cent, ``brier`` (0 to 2), ``nll`` in nats, ``top1``,
    ``confidence`` (its mean, in per cent), and ``reliability``, one entry a bin of equal width.
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    confidence, predictions = p.max(1)
    right = (predictions == labels).double()
    own = p.gather(1, labels[:, None])[:, 0]
    confidences, hits = confidence.numpy(), right.numpy()
    width = equal_width(confidences, bins)
    equal_count = np.empty(len(hits), dtype=int)
    equal_count[np.argsort(confidences, kind="stable")] = np.arange(len(hits)) * bins // len(hits)
    return {
        "ece": percent(expected_error(confidences, hits, width, bins)),
        "adaptive_ece": percent(expected_error(confidences, hits, equal_count, bins)),
        "brier": float((p.square().sum(1) - 2 * own + 1).mean()),
        "nll": float(-log_p.gather(1, labels[:, None]).mean()),
        "top1": percent(right.mean()),
        "confidence": percent(confidence.mean()),
        "reliability": reliability(confidences, hits, width, bins),
    }


def equal_width(confidences: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence."""
    return np.minimum((confidences * bins).astype(int), bins - 1)


def equal_width_error(p: Tensor, hits: Tensor, bins: int) -> float:
    """ECE, from 0 to 1, of probabilities ``N`` of what is so (``hits`` 1) or not (0)."""
    return expected_error(p.numpy(), hits.numpy(), equal_width(p.numpy(), bins), bins)


def expected_error(confidences: np.ndarray, hits: np.ndarray, which: np.ndarray, bins: int) -> float:
    """The mean over images of the distance between their bin's mean confidence and its accuracy."""
    gaps = np.bincount(which, confidences - hits, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def reliability(confidences: np.ndarray, hits: np.ndarray, which: np.ndarray, bins: int) -> list[dict[str, Any]]:
    """Each bin's edges ``low`` and ``high``, ``images``, mean ``confidence`` and ``accuracy`` (null if empty)."""
    counts = np.bincount(which, minlength=bins)
    sums = (np.bincount(which, values, minlength=bins) for values in (confidences, hits))
    rows = []
    for i, (count, confident, correct) in enumerate(zip(counts.tolist(), *(s.tolist() for s in sums), strict=True)):
        means = (confident / count, correct / count) if count else (None, None)
        edges = {"low": i / bins, "high": (i + 1) / bins}
        rows.append({**edges, "images": count, "confidence": means[0], "accuracy": means[1]})
    return rows
