"""Accuracy, calibration, confidence, errors and OOD against torchmetrics, scikit-learn and scipy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support, roc_auc_score, roc_curve
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from mixskd.errors import UserError
from mixskd.evaluation.base import PART
from mixskd.evaluation.suites.accuracy import Accuracy
from mixskd.evaluation.suites.calibration import Calibration, calibration
from mixskd.evaluation.suites.confidence import Confidence
from mixskd.evaluation.suites.errors import Errors
from mixskd.evaluation.suites.ood import Ood, separation
from mixskd.tasks.temperature_scaling import best_temperature
from tests.evaluation.support import Fixed, context, numbered

GENERATOR = torch.Generator().manual_seed(5)
LABELS = torch.randint(6, (200,), generator=GENERATOR)
LOGITS = 2.0 * torch.randn(200, 6, generator=GENERATOR) + 2 * F.one_hot(LABELS, 6)


def test_accuracy_agrees_with_torchmetrics_and_scikit_learn() -> None:
    names = [f"class {i}" for i in range(6)]
    result = Accuracy()(Fixed(LOGITS), numbered(LABELS), context(classes=names))
    for k in (1, 5):
        expected = 100 * multiclass_accuracy(LOGITS, LABELS, 6, average="micro", top_k=k).item()
        assert result[f"top{k}"] == pytest.approx(expected, abs=1e-4)
    truth, called = LABELS.numpy(), LOGITS.argmax(1).numpy()
    assert result["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(truth, called))
    columns = precision_recall_fscore_support(truth, called, zero_division=0)
    for key, values in zip(("precision", "recall", "f1"), columns[:3], strict=True):
        assert [row[key] for row in result["classes"]] == pytest.approx((100 * values).tolist())
    assert np.array(result["confusion"]).sum() == 200 == result["images"]
    assert result["classes"][2]["name"] == "class 2"
    json.dumps(result, allow_nan=False)


def test_ece_agrees_with_torchmetrics_and_the_rest_with_numpy() -> None:
    found = calibration(LOGITS, LABELS, 15)
    expected = multiclass_calibration_error(LOGITS.double().softmax(1), LABELS, 6, n_bins=15)
    assert found["ece"] == pytest.approx(100 * expected.item(), abs=1e-4)
    p = LOGITS.double().softmax(1).numpy()
    onehot = np.eye(6)[LABELS.numpy()]
    assert found["brier"] == pytest.approx(((p - onehot) ** 2).sum(1).mean())
    assert found["nll"] == pytest.approx(F.cross_entropy(LOGITS.double(), LABELS).item())
    order = np.argsort(p.max(1))
    hits = p.argmax(1) == LABELS.numpy()
    gaps = [abs((p.max(1)[part] - hits[part]).sum()) for part in np.array_split(order, 10)]
    assert calibration(LOGITS, LABELS, 10)["adaptive_ece"] == pytest.approx(100 * sum(gaps) / 200)
    assert sum(row["images"] for row in found["reliability"]) == 200


def test_temperature_matches_another_optimiser_of_scipy() -> None:
    def loss(t: np.ndarray) -> float:
        return F.cross_entropy(LOGITS.double() / float(t[0]), LABELS).item()

    expected = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]
    assert best_temperature(LOGITS, LABELS) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(1, abs=0.05)


def test_calibration_fits_on_val_or_on_half() -> None:
    model, data = Fixed(LOGITS), numbered(LABELS)
    val = numbered(LABELS[:60])
    on_val = Calibration()(model, data, context(val=val))
    assert on_val["fitted_on"] == "val"
    assert on_val["temperature"] == pytest.approx(best_temperature(LOGITS[:60], LABELS[:60]))
    assert on_val["reported_images"] == 200
    assert on_val["whole"] == on_val["before"]
    on_half = Calibration()(model, data, context())
    assert on_half["fitted_images"] == on_half["reported_images"] == 100
    assert on_half["after"]["top1"] == on_half["before"]["top1"]
    assert on_half["after"]["nll"] != on_half["before"]["nll"]
    with pytest.raises(UserError, match="needs a validation split"):
        Calibration(fit="val")(model, data, context())


def test_confidence_uses_shared_mistakes() -> None:
    other = LOGITS.roll(1, 1)
    data = numbered(LABELS)
    result = Confidence(bins=10)(Fixed(LOGITS), data, context(name="a", others={"b": Fixed(other)}))
    shared = (LOGITS.argmax(1) != LABELS) & (other.argmax(1) != LABELS)
    assert result["shared_mistakes"] == int(shared.sum())
    for name, logits in {"a": LOGITS, "b": other}.items():
        log_p = logits.double().log_softmax(1)[shared]
        row = result["models"][name]
        assert row["predicted"]["mean"] == pytest.approx(log_p.max(1).values.mean().item())
        assert row["true"]["mean"] == pytest.approx(log_p[torch.arange(len(log_p)), LABELS[shared]].mean().item())
        assert sum(row["true"]["counts"]) == sum(row["predicted"]["counts"]) == int(shared.sum())
    assert result["models"]["a"]["true"]["edges"] == result["models"]["b"]["true"]["edges"]


def test_confidence_rejects_models_that_cannot_be_compared() -> None:
    model, data = Fixed(LOGITS), numbered(LABELS)
    with pytest.raises(UserError, match="two or more runs"):
        Confidence()(model, data, context())
    with pytest.raises(UserError, match="models of the same classes"):
        Confidence()(model, data, context(others={"b": Fixed(LOGITS.repeat(1, 2))}))
    right = Fixed(10 * F.one_hot(LABELS, 6).float())
    with pytest.raises(UserError, match="no image of test is misclassified by all"):
        Confidence()(model, data, context(others={"b": right}))


def test_ood_agrees_with_scikit_learn() -> None:
    foreign = 0.5 * torch.randn(90, 6, generator=GENERATOR)
    logits = torch.cat([LOGITS, foreign])
    images = numbered(torch.zeros(290, dtype=torch.long), batch=200)
    own, other = [(images[0][0], LABELS)], [images[1]]
    result = Ood()(Fixed(logits), own, context(other_data={"test": other}, other_name="noise"))
    truth = np.r_[np.ones(200), np.zeros(90)]
    for name, score in {"max_softmax": logits.softmax(1).max(1).values, "energy": logits.logsumexp(1)}.items():
        values = score.double().numpy()
        assert result[name]["auroc"] == pytest.approx(100 * roc_auc_score(truth, values))
        false, true, _ = roc_curve(truth, values, drop_intermediate=False)
        assert result[name]["fpr95"] == pytest.approx(100 * false[true >= 0.95].min())
    assert result["other_images"] == 90
    with pytest.raises(UserError, match=r"name one with --ood\.data"):
        Ood()(Fixed(logits), own, context())


def test_separation_counts_ties_as_half() -> None:
    own, other = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    pairs = [(a > b) + 0.5 * (a == b) for a in own.tolist() for b in other.tolist()]
    assert separation(own, other) == pytest.approx({"auroc": 100 * sum(pairs) / 6, "fpr95": 50})


def test_errors_finds_mistakes_pairs_and_wrong_labels() -> None:
    labels = torch.arange(60) % 3
    logits = 5 * F.one_hot(labels, 3).float() + 0.1 * torch.rand(60, 3, generator=GENERATOR)
    logits[7] = torch.tensor([0.0, 0.5, 1.0])  # a mistake that is not sure: label 1
    logits[9, 0] = 6.0  # surer than others of its class
    given = labels.clone()
    given[9] = 2  # the label of an image of class 0 is wrong
    paths = [f"{i}.png" for i in range(60)]
    result = Errors()(Fixed(logits), numbered(given), context(classes=["x", "y", "z"], paths=paths))
    assert [row["path"] for row in result["mistakes"]] == ["9.png", "7.png"]
    assert [row["index"] for row in result["suspects"]] == [9]
    assert result["suspects"][0]["label"] == "z"
    assert result["suspects"][0]["predicted"] == "x"
    pairs = {(row["label"], row["predicted"]): row["images"] for row in result["pairs"]}
    assert pairs == {("z", "x"): 1, ("y", "z"): 1}
    assert result["error"] == pytest.approx(100 * 2 / 60)
    json.dumps(result, allow_nan=False)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(UserError, match="a label 6, but the model has 6 classes"):
        Accuracy()(Fixed(LOGITS), numbered(torch.full((3,), 6)), context())


class Largest(TorchDispatchMode):
    """How many numbers the largest float64 tensor has that is made within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):  # type: ignore[no-untyped-def]
        made = function(*given, **(named or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, Tensor) and value.dtype == torch.float64:
                self.size = max(self.size, value.numel())
        return made


def test_errors_makes_no_second_copy_of_all_logits() -> None:
    logits, labels = torch.randn(5 * PART, 7, generator=GENERATOR), torch.arange(5 * PART) % 7
    data = numbered(labels, batch=PART)
    with Largest() as largest:
        result = Errors()(Fixed(logits), data, context())
    assert largest.size <= max(7 * PART, len(labels))
    p = logits.double().softmax(1)
    first = result["mistakes"][0]
    assert first["predicted_probability"] == pytest.approx(float(p[p.argmax(1) != labels].max()))
    assert first["label_probability"] == pytest.approx(float(p[first["index"], int(first["label"])]))
    own = p.gather(1, labels[:, None])[:, 0]
    limits = torch.stack([own[labels == c].mean() for c in range(7)])
    other = p.masked_fill(p < limits, -1).max(1)
    expected = (other.values >= 0) & (other.indices != labels) & (own < limits[labels])
    assert result["number_of_suspects"] == int(expected.sum())
