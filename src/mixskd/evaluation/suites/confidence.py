"""The suite ``confidence``: the confidence of classifiers in the mistakes that all of them make (MixSKD, Fig. 3a)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta, Struct
from torch import nn

from mixskd.config.records import Amount, Number, Numbers, Text
from mixskd.config.types import Count, Settings
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches, Context, percent, report
from mixskd.evaluation.stored_results import SuiteResult


class Histogram(Struct):
    """How often each probability occurs."""

    mean: Number
    counts: Numbers
    edges: Numbers

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError("there must be one edge more than counts")


class Histograms(Struct):
    """The histograms of one model."""

    predicted: Histogram
    true: Histogram


class ConfidenceResult(SuiteResult):
    """The stored result."""

    shared_mistakes: Amount
    models: dict[Text, Histograms]


@dataclass(frozen=True)
class Confidence(Settings, prefix="confidence."):
    """Log-probabilities of the predicted and of the true class over the images that every model gets wrong.

    Args:
        bins: the number of bins of the histograms; all models share their edges.
        lowest: the left edge of the histograms of the true class, in nats; smaller values are put into the first bin.
    """

    name: ClassVar[str] = "confidence"
    about: ClassVar[str] = "log-probabilities over the mistakes that two or more runs share"
    Result: ClassVar[type] = ConfidenceResult

    bins: Count = 30
    lowest: Annotated[float, Meta(lt=0)] = -15.0

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``models``: by name, means in nats and histograms of ``predicted`` and ``true`` over the shared mistakes.

        Raises UserError for fewer than two models, models of different classes, or no mistake in common.
        """
        models = {context.name: model, **context.others}
        if len(models) < 2:
            raise UserError("the suite confidence compares two or more runs; name another one")
        outputs = {n: context.outputs(m, data, i, len(models)) for i, (n, m) in enumerate(models.items())}
        if len({o.logits.shape[1] for o in outputs.values()}) > 1:
            sizes = ", ".join(f"{name}: {o.logits.shape[1]}" for name, o in outputs.items())
            raise UserError(f"the suite confidence needs models of the same classes; these have {sizes}")
        labels = next(iter(outputs.values())).labels
        wrong = np.logical_and.reduce([(o.predictions != labels).numpy() for o in outputs.values()])
        if not wrong.any():
            raise UserError(f"no image of {context.split} is misclassified by all of {', '.join(models)}")
        rows: dict[str, Any] = {}
        for name, output in outputs.items():
            log_p = output.logits[wrong].double().log_softmax(1)
            predicted = log_p.max(1).values.numpy()
            true = log_p.gather(1, labels[wrong][:, None])[:, 0].numpy()
            lowest = -float(np.log(log_p.shape[1]))  # the largest of C probabilities is 1/C or more
            rows[name] = {
                "top1": percent((output.predictions == labels).double().mean()),
                "predicted": self.histogram(predicted, lowest),
                "true": self.histogram(true, self.lowest),
            }
        mean = rows[context.name]["predicted"]["mean"]
        return report(
            self, context, images=len(labels), headline=("mean log p(predicted) on shared mistakes", mean),
            higher_is_better=False, shared_mistakes=int(wrong.sum()), models=rows,
            protocol="natural logarithms of softmax in float64, temperature 1, over the images that all models "
            "misclassify",
        )  # fmt: skip

    def histogram(self, values: np.ndarray, low: float) -> dict[str, Any]:
        """``mean``, ``median``, and ``counts`` between ``edges``, which depend on the options alone."""
        edges = np.linspace(low, 0.0, self.bins + 1)
        counts, _ = np.histogram(np.clip(values, low, 0.0), edges)
        statistics = {"mean": float(values.mean()), "median": float(np.median(values))}
        return {**statistics, "edges": edges.tolist(), "counts": counts.tolist()}
