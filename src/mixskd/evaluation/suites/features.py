"""The suite ``features``: accuracy of simple classifiers on the frozen features before the head."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mixskd.config.records import Amount, Number, Text
from mixskd.config.types import Count, Positive, Settings, WholeNumber
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches, Context, head_inputs, images_in, percent, random_choice, report, selected
from mixskd.evaluation.stored_results import SuiteResult


class FeaturesResult(SuiteResult):
    """The stored result."""

    trained_on: Text
    train_images: Amount
    feature_dim: Amount
    knn_top1: Number
    linear_top1: Number
    converged: Any


@dataclass(frozen=True)
class Features(Settings, prefix="features."):
    """k-nearest-neighbour and logistic-regression accuracy on frozen features, here or on another data set.

    Args:
        data: another data set. Its training images are fitted and its test images scored; the run's own data if empty.
        neighbours: the k of the nearest neighbours, by cosine distance.
        max_train: fit on at most this many training images, a seeded random choice; 0 for all.
        regularisation: the parameter C of scikit-learn's LogisticRegression, on standardised features.
        iterations: the largest number of iterations of its solver.
    """

    name: ClassVar[str] = "features"
    about: ClassVar[str] = "k-NN and linear probe on frozen features, here or on another data set (--features.data)"
    Result: ClassVar[type] = FeaturesResult

    data: str = ""
    neighbours: Count = 20
    max_train: WholeNumber = 10000
    regularisation: Positive = 0.1
    iterations: Count = 200

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``knn_top1`` and ``linear_top1`` in per cent.

        Raises UserError without training images, or if these have one class only.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if context.other_data:
            train, data = context.other_data.get("train"), context.other_data.get("test", data)
        else:
            train = context.train
        if train is None:
            raise UserError("the suite features needs training images, and there are none; give the run's data")
        x, y = extract(model, train, context, 0, keep=self.max_train)
        x_test, y_test = (
            extract(model, data, context, 1) if context.other_data else split_features(model, data, context)
        )
        if len(np.unique(y)) < 2:
            raise UserError("the suite features needs training images of two or more classes")
        knn = KNeighborsClassifier(min(self.neighbours, len(y)), metric="cosine", weights="distance")
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=self.regularisation, max_iter=self.iterations))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            linear.fit(x, y)
        converged = not any("converge" in str(warning.message) for warning in caught)
        linear_top1 = percent(linear.score(x_test, y_test))
        return report(
            self, context, images=len(y_test), headline=("linear probe top1", linear_top1),
            protocol="features are what the head takes, from images without augmentation; k-NN votes by cosine "
            "distance, weighted by its inverse; the probe is a logistic regression on standardised features",
            trained_on=context.other_name or "own data", train_images=len(y), feature_dim=x.shape[1],
            knn_top1=percent(knn.fit(x, y).score(x_test, y_test)), linear_top1=linear_top1, converged=converged,
        )  # fmt: skip


def split_features(model: nn.Module, data: Batches, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels as from :func:`extract`, taken from the pass of all suites if it kept them."""
    if not context.keep_features:
        return extract(model, data, context, 1)
    outputs = context.outputs(model, data, 1, 2)
    assert outputs.features is not None
    return outputs.features.numpy(), outputs.labels.numpy()


def extract(
    model: nn.Module, data: Batches, context: Context, part: int, *, keep: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features ``N x D`` in fp32 and labels ``N``; of a seeded choice of ``keep`` images if that is not 0."""
    features, labels, batches = [], [], context.batches(data, part, 2)
    if keep and (total := images_in(data)) > keep:
        batches = selected(batches, random_choice(total, keep, context.generator()))
    with head_inputs(model) as seen, torch.inference_mode():
        for images, targets in batches:
            model(images)
            features.append(seen.pop().float().flatten(1).cpu())
            labels.append(targets.cpu())
    if not labels:
        raise UserError("the suite features found no image")
    return torch.cat(features).numpy(), torch.cat(labels).numpy()
