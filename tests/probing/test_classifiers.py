"""The classifiers against scikit-learn's own, and what decides between them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from mixskd.probing.classifiers import logistic_regressions, nearest_neighbour, prototypes
from mixskd.probing.selection import LOGISTIC, NEAREST, USUAL_STRENGTH, Labelled, fit_and_select, folds


def clusters(images: int, channels: int, classes: int, noise: float = 1.0) -> Labelled:
    """Features round one centre a class, with means and deviations far from 0 and 1; one feature is constant."""
    draw = np.random.default_rng(0)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(1).normal(size=(classes, channels))
    features = 3 + 0.2 * np.arange(channels) * (centres[labels] + noise * draw.normal(size=(images, channels)))
    return Labelled(features.astype(np.float32), labels)


@pytest.mark.parametrize(("images", "channels", "classes"), [(24, 40, 4), (60, 8, 3), (20, 30, 2)])
def test_logistic_regression_is_that_of_scikit_learn(images: int, channels: int, classes: int) -> None:
    data, other = clusters(images, channels, classes), clusters(200, channels, classes, noise=2)
    for strength, linear in zip((0.01, 1.0), logistic_regressions(*_parts(data), classes, (0.01, 1.0)), strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=10_000, tol=1e-8))
        model.fit(data.features.astype(np.float64), data.labels)
        ours = softmax(linear.logits(other.features), axis=1)
        np.testing.assert_allclose(ours, model.predict_proba(other.features.astype(np.float64)), rtol=0, atol=1e-4)


def test_prototypes_are_the_nearest_means_by_angle() -> None:
    data, other = clusters(40, 12, 4), clusters(100, 12, 4, noise=3)
    linear = prototypes(data.features, data.labels, 4)
    means = NearestCentroid().fit(normalize(data.features), data.labels).centroids_
    expected = (normalize(other.features) @ normalize(means).T).argmax(1)
    np.testing.assert_array_equal(linear.predict(other.features), expected)
    assert 0.3 < (expected == other.labels).mean() < 1


def test_nearest_neighbour_is_by_cosine() -> None:
    features, labels = np.array([[1.0, 0.0], [10.0, 10.0]], dtype=np.float32), np.array([0, 1])
    found = nearest_neighbour(features, labels).predict(np.array([[9.0, 1.0], [0.1, 0.1]]))
    assert found.tolist() == [0, 1]


def test_a_class_without_images_is_never_predicted() -> None:
    data, other = clusters(30, 6, 2), clusters(100, 6, 2, noise=5)
    for linear in (prototypes(*_parts(data), 3), *logistic_regressions(*_parts(data), 3, (1.0,))):
        assert set(linear.predict(other.features).tolist()) == {0, 1}


def test_val_chooses_the_classifier_if_there_is_one() -> None:
    train = clusters(40, 10, 4)
    wrong = Labelled(train.features, (train.labels + 1) % 4)
    selection = fit_and_select(train, wrong, 4)
    assert selection.by == "val"
    assert all(one.held_out < 50 for one in selection.fitted)
    assert all(one.held_out > 50 for one in fit_and_select(train, train, 4).fitted)


def test_folds_choose_the_penalty_without_val() -> None:
    noisy = clusters(60, 50, 3, noise=3)
    selection = fit_and_select(noisy, None, 3)
    assert selection.by == "5 folds"
    by_fold = {one.kind: one.held_out for one in selection.fitted}
    assert by_fold[LOGISTIC] < 100
    fit = selection.logistic
    assert fit.top1(noisy) == 100  # which is why the training images themselves must not choose
    assert by_fold[NEAREST] < 100
    assert selection.best.held_out == max(by_fold.values())
    assert selection.best_linear.linear is not None


def test_folds_keep_groups_together() -> None:
    labels, groups = np.arange(40) % 2, np.arange(40) // 4
    for fit, held in folds(labels, groups, 0):
        assert not set(groups[fit]) & set(groups[held])
    assert sorted(np.concatenate([held for _, held in folds(labels, groups, 0)]).tolist()) == list(range(40))


def test_one_image_a_class_leaves_nothing_to_choose_by() -> None:
    data = clusters(4, 6, 4)
    selection = fit_and_select(data, None, 4)
    assert np.isnan([one.held_out for one in selection.fitted]).all()
    assert selection.logistic.setting == f"C {USUAL_STRENGTH:g}"
    assert selection.best.kind == LOGISTIC


def test_many_images_are_divided_once() -> None:
    assert len(folds(np.arange(2000) % 4, None, 0)) == 5
    assert len(folds(np.arange(2004) % 4, None, 0)) == 1


def _parts(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    return data.features, data.labels
