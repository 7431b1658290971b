"""The evaluation suites, by name: one file a suite. Each is imported at its first use."""

from collections.abc import Mapping
from typing import Any

from mixskd.config.conversion import convert
from mixskd.config.lazy_table import LazyTable
from mixskd.errors import unknown

SUITES = LazyTable(
    {
        "accuracy": "mixskd.evaluation.suites.accuracy:Accuracy",
        "fgsm": "mixskd.evaluation.suites.fgsm:Fgsm",
        "pgd": "mixskd.evaluation.suites.pgd:Pgd",
        "linearity": "mixskd.evaluation.suites.linearity:Linearity",
        "confidence": "mixskd.evaluation.suites.confidence:Confidence",
        "calibration": "mixskd.evaluation.suites.calibration:Calibration",
        "corruption": "mixskd.evaluation.suites.corruption:Corruption",
        "features": "mixskd.evaluation.suites.features:Features",
        "ood": "mixskd.evaluation.suites.ood:Ood",
        "errors": "mixskd.evaluation.suites.errors:Errors",
    }
)


def build_suite(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The suite ``name`` with ``options``, typed or as text. Raises UserError for an unknown name, key or value."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    return convert(options or {}, SUITES[name], name)
