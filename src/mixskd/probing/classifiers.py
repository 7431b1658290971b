"""Classifiers on features ``N x D``: nearest neighbour, class prototypes and logistic regression.

The last two are linear in the features, so that a network's last layer can hold them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Linear:
    """logits = features x ``weight``^T + ``bias``; ``weight`` is ``classes x D``, both are float64."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features @ self.weight.T + self.bias)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.logits(features).argmax(1)

    def scaled(self, factor: float) -> Linear:
        """The same predictions with all logits multiplied by ``factor``, which is above 0."""
        return Linear(self.weight * factor, self.bias * factor)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray) -> Any:
    """scikit-learn's classifier by the one nearest training image in cosine distance."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(features, labels)


def prototypes(features: np.ndarray, labels: np.ndarray, classes: int) -> Linear:
    """The classifier by the nearest class mean in cosine distance; means are of features of length 1."""
    from sklearn.preprocessing import normalize

    members = labels[None] == np.arange(classes)[:, None]
    return _complete(normalize(members @ normalize(features.astype(np.float64))), np.zeros(classes), members.any(1))


def logistic_regressions(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Linear]:
    """scikit-learn's LogisticRegression on standardised features, one for each inverse penalty C of ``strengths``.

    The standardisation is folded in: with means m and deviations s, W' = W / s and b' = b - W' m. A class without
    training images has a bias of minus infinity.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler, basis = StandardScaler(), None
    points = scaler.fit_transform(features.astype(np.float64))
    if len(points) < points.shape[1]:
        # The penalised optimum lies in the span of the images, and turning the axes changes no penalty.
        basis, triangle = np.linalg.qr(points.T)
        points = triangle.T
    fitted = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points, labels)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one vector w: the softmax of -w/2 and w/2 is its sigmoid
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight if basis is None else weight @ basis.T
        whole, offset = np.zeros((classes, weight.shape[1])), np.zeros(classes)
        whole[model.classes_] = weight / scaler.scale_
        offset[model.classes_] = bias
        seen = np.isin(np.arange(classes), model.classes_)
        fitted.append(_complete(whole, offset - whole @ scaler.mean_, seen))
    return fitted


def _complete(weight: np.ndarray, bias: np.ndarray, seen: np.ndarray) -> Linear:
    return Linear(weight, np.where(seen, bias, -np.inf))
