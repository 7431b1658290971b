"""Every suite by name, and how one is built from its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixskd.config import build
from mixskd.errors import unknown
from mixskd.evaluation.accuracy import Accuracy
from mixskd.evaluation.base import Evaluator
from mixskd.evaluation.calibration import Calibration
from mixskd.evaluation.confidence import Confidence
from mixskd.evaluation.corruption import Corruption
from mixskd.evaluation.errors import Errors
from mixskd.evaluation.features import Features
from mixskd.evaluation.fgsm import Fgsm
from mixskd.evaluation.linearity import Linearity
from mixskd.evaluation.ood import Ood
from mixskd.evaluation.pgd import Pgd

SUITES: dict[str, type[Evaluator]] = {
    "accuracy": Accuracy,
    "fgsm": Fgsm,
    "pgd": Pgd,
    "linearity": Linearity,
    "confidence": Confidence,
    "calibration": Calibration,
    "corruption": Corruption,
    "features": Features,
    "ood": Ood,
    "errors": Errors,
}


def build_suite(name: str, options: Mapping[str, Any] | None = None) -> Evaluator:
    """The suite ``name`` with ``options``, typed or as text. Raises UserError for an unknown name, key or value."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    suite: Evaluator = build(SUITES[name], options or {}, f"{name}.")
    return suite
