"""Weights of classes and logit adjustment from the numbers of training images, against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch.testing import assert_close

from mixskd import UserError
from mixskd.config.optim import LabelLoss
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.preprocess import Preprocess
from mixskd.methods.parts.criteria import BinaryCrossEntropy, CrossEntropy
from mixskd.training.criterion import criterion_of, imbalance_note

COUNTS = np.array([1, 3, 12])


def bundle(labels: np.ndarray) -> DataBundle:
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return DataBundle({"train": ImageSet(images, labels)}, ("a", "b", "c"), Preprocess(4))


def ce_of(labels: np.ndarray | None = None, **optim: Any) -> CrossEntropy:
    return criterion_of(LabelLoss(**optim), bundle(np.repeat(np.arange(3), COUNTS) if labels is None else labels))


def test_weights_in_inverse_proportion_to_counts_have_a_mean_of_one() -> None:
    assert ce_of().weights is None
    assert ce_of(class_weights="balanced").weights.tolist() == pytest.approx([16 / (3 * n) for n in COUNTS])
    effective = ce_of(class_weights="effective", effective_beta=0.9).weights.double().numpy()
    inverse = (1 - 0.9) / (1 - 0.9**COUNTS)  # Cui et al., Eq. 2
    assert effective == pytest.approx(inverse / (COUNTS * inverse).sum() * 16)
    assert (COUNTS * effective).sum() == pytest.approx(16)
    assert ce_of(class_weights="effective", effective_beta=0).weights.tolist() == [1, 1, 1]


def test_weights_by_name_are_taken_as_given() -> None:
    assert ce_of(class_weights={"b": 2.5}).weights.tolist() == [1, 2.5, 1]
    with pytest.raises(UserError, match=r"unknown class in optim\.class_weights 'B'; choose from a, b, c"):
        ce_of(class_weights={"B": 2})


def test_logit_adjustment_is_tau_log_prior() -> None:
    assert ce_of(logit_adjustment=1.5).adjustment.tolist() == pytest.approx((1.5 * np.log(COUNTS / 16)).tolist())


def test_several_labels_weigh_presence_against_absence() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1]], np.uint8)
    ce = ce_of(labels, class_weights="balanced", logit_adjustment=1, asymmetric=(4, 0, 0.05))
    assert isinstance(ce, BinaryCrossEntropy)
    assert ce.asymmetric == (4, 0, 0.05)
    assert ce.weights.tolist() == pytest.approx([1 / 4, 3, 1])  # absent / present; at least one absent
    assert_close(ce.adjustment.double().numpy(), np.log([4, 1 / 3, 1]), rtol=1e-6, atol=1e-7)
    effective = ce_of(labels, class_weights="effective", effective_beta=0.5).weights.tolist()
    assert effective == pytest.approx([0.5 / (1 - 0.5**4), (1 - 0.5**3) / 0.5, 1])


def test_probabilities_count_by_their_sum() -> None:
    labels = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]], np.float32)
    assert ce_of(labels, class_weights="balanced").weights.tolist() == pytest.approx([4 / 3, 2 / 3, 4 / 3])


def test_asymmetric_loss_is_refused_for_one_label() -> None:
    with pytest.raises(UserError, match="for several labels an image; leave it out"):
        ce_of(asymmetric=(4, 0, 0.05))


def test_note_on_imbalance_names_what_regards_it() -> None:
    data = bundle(np.repeat(np.arange(3), COUNTS))
    (note,) = imbalance_note(LabelLoss(), 0.0, data)
    assert "12 times the images of the smallest; see --data.balance 0.5, --optim.class-weights balanced" in note
    assert imbalance_note(LabelLoss(), 0.5, data) == []
    assert imbalance_note(LabelLoss(logit_adjustment=1), 0.0, data) == []
    assert imbalance_note(LabelLoss(), 0.0, bundle(np.repeat(np.arange(3), [2, 10, 19]))) == []
