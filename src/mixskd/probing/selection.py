"""Choose the best simple classifier by ``val`` or by folds of the training images, never by ``test``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from mixskd.errors import UserError, first_line
from mixskd.probing.classifiers import Linear, logistic_regressions, nearest_neighbour, prototypes
from mixskd.tasks.temperature_scaling import best_temperature

NEAREST, PROTOTYPES, LOGISTIC = "nearest neighbour", "class prototypes", "logistic regression"
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
USUAL_STRENGTH = 1.0  # where no image can be held out to choose by
FOLDS = 5
MANY = 2000  # training images from which on one fold is held out, and not each of them in turn


@dataclass(frozen=True)
class Labelled:
    """Features ``N x D`` with class indices ``N``."""

    features: np.ndarray
    labels: np.ndarray

    def at(self, indices: np.ndarray) -> Labelled:
        return Labelled(self.features[indices], self.labels[indices])


@dataclass(frozen=True)
class Fitted:
    """A classifier on all training images.

    Args:
        kind: NEAREST, PROTOTYPES or LOGISTIC.
        setting: its hyper-parameter, as ``C 0.1``; empty if it has none.
        held_out: its accuracy on images that were held out, in per cent; NaN if none could be.
        predict: class indices of features ``N x D``.
        linear: the same as a linear layer; None for the nearest neighbour.
    """

    kind: str
    setting: str
    held_out: float
    predict: Callable[[np.ndarray], np.ndarray]
    linear: Linear | None = None

    @property
    def name(self) -> str:
        """The kind with its hyper-parameter."""
        return f"{self.kind}, {self.setting}" if self.setting else self.kind

    def top1(self, data: Labelled) -> float:
        """The accuracy on ``data`` in per cent."""
        return 100 * float((self.predict(data.features) == data.labels).mean())


@dataclass(frozen=True)
class Selection:
    """The ``fitted`` classifiers, and ``by``, the images that they are ranked on, in words."""

    fitted: tuple[Fitted, ...]
    by: str

    @property
    def best(self) -> Fitted:
        """The classifier with the highest accuracy on held-out images; of equal ones the last, the most general."""
        return _best(self.fitted)

    @property
    def best_linear(self) -> Fitted:
        """The best linear classifier."""
        return _best([one for one in self.fitted if one.linear is not None])

    @property
    def logistic(self) -> Fitted:
        return next(one for one in self.fitted if one.kind == LOGISTIC)


def _best(fitted: Sequence[Fitted]) -> Fitted:
    return max(reversed(fitted), key=lambda one: np.nan_to_num(one.held_out, nan=-1.0))


def fit_and_select(
    train: Labelled, val: Labelled | None, classes: int, groups: np.ndarray | None = None, seed: int = 0
) -> Selection:
    """All classifiers fitted on ``train``; settings and ranks are decided on ``val``, or without one by folds.

    Folds are stratified, and keep the images of each of ``groups`` together.
    """
    # On small problems threads wait for each other for longer than they compute.
    with threadpool_limits(1 if len(train.labels) <= MANY else None):
        if val is not None:
            return _selected(train, [(train, val)], classes, "val")
        parts = folds(train.labels, groups, seed)
        by = f"{len(parts)} folds" if len(parts) != 1 else "a part of train"
        trials = [(train.at(fit), train.at(held)) for fit, held in parts]
        return _selected(train, trials, classes, by if parts else "nothing, for want of images")


def _selected(train: Labelled, trials: Sequence[tuple[Labelled, Labelled]], classes: int, by: str) -> Selection:
    """The classifiers on ``train``, chosen by what they do on the second part of each trial, fitted on the first."""

    def correct(predict: Callable[[np.ndarray], np.ndarray], held: Labelled) -> int:
        return int((predict(held.features) == held.labels).sum())

    near, centres, by_strength = 0, 0, np.zeros(len(STRENGTHS), dtype=int)
    logits = []
    for fit, held in trials:
        near += correct(nearest_neighbour(fit.features, fit.labels).predict, held)
        means = prototypes(fit.features, fit.labels, classes)
        centres += correct(means.predict, held)
        logits.append(means.logits(held.features))
        each = logistic_regressions(fit.features, fit.labels, classes, STRENGTHS)
        by_strength += [correct(linear.predict, held) for linear in each]
    total = sum(len(held.labels) for _, held in trials)
    shares = [100 * int(number) / total if total else float("nan") for number in (near, centres, by_strength.max())]
    strength = STRENGTHS[int(by_strength.argmax())] if total else USUAL_STRENGTH
    means = prototypes(train.features, train.labels, classes)
    if total:  # cosines have no natural scale
        means = means.scaled(1 / _temperature(np.concatenate(logits), [held.labels for _, held in trials]))
    (linear,) = logistic_regressions(train.features, train.labels, classes, [strength])
    return Selection(
        (
            Fitted(NEAREST, "", shares[0], nearest_neighbour(train.features, train.labels).predict),
            Fitted(PROTOTYPES, "", shares[1], means.predict, means),
            Fitted(LOGISTIC, f"C {strength:g}", shares[2], linear.predict, linear),
        ),
        by,
    )


def folds(labels: np.ndarray, groups: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices to fit on and to hold out; empty if a class, or the number of groups, is too small to divide."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fewest = int(np.bincount(labels)[np.unique(labels)].min()) if groups is None else len(np.unique(groups))
    number = min(FOLDS, fewest)
    if number < 2:
        return []
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    try:
        parts = list(kind(number, shuffle=True, random_state=seed).split(labels, labels, groups))
    except ValueError as error:
        raise UserError(f"data.group leaves no folds to choose by: {first_line(error)}; add a val") from None
    parts = [(fit, held) for fit, held in parts if len(held) and len(np.unique(labels[fit])) > 1]
    return parts[:1] if len(labels) > MANY else parts


def _temperature(logits: np.ndarray, labels: Sequence[np.ndarray]) -> float:
    finite = np.nan_to_num(logits, neginf=-1e4)
    return best_temperature(torch.from_numpy(finite), torch.from_numpy(np.concatenate(labels)).long())
