"""Calibration error and reliability of probabilities, for the suite ``calibration`` and for ``mixskd calibrate``."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mixskd.evaluation.base import percent


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
    width = np.minimum((confidences * bins).astype(int), bins - 1)
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
