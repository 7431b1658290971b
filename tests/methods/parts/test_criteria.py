"""Cross-entropies with weights, adjusted logits and several labels, against loops over images and classes in floats."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from mixskd import UserError
from mixskd.methods import METHODS
from mixskd.methods.base import SEVERAL
from mixskd.methods.focal import focal_loss
from mixskd.methods.label_smoothing import label_smoothing_loss
from mixskd.methods.manifold_mixup import mixed_bce_loss
from mixskd.methods.parts.criteria import BinaryCrossEntropy, CrossEntropy
from mixskd.methods.parts.mixing import Mix
from mixskd.methods.pskd import pskd_loss
from mixskd.methods.virtual_softmax import virtual_softmax_loss
from tests.conftest import make_toy
from tests.methods.reference import softmax
from tests.methods.support import batch, extras, make

B, N = 4, 3
W, A = [0.5, 2.0, 3.0], [0.3, -1.0, 0.2]
double = partial(torch.tensor, dtype=torch.float64)
LOGITS = torch.randn(B, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
HARD = torch.tensor([0, 2, 1, 2])
SOFT = double([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.4, 0.6], [0.1, 0.9, 0]])
MANY = double([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
MIX = Mix(double(0.3), torch.tensor([2, 0, 3, 1]))


def rows(labels: Tensor, mix: Mix | None, smoothing: float, outcomes: int) -> list[list[float]]:
    y = labels.tolist() if labels.ndim == 2 else [[float(n == label) for n in range(N)] for label in labels.tolist()]
    if mix is not None:
        lam, other = float(mix.lam), mix.permutation.tolist()
        y = [[lam * a + (1 - lam) * b for a, b in zip(y[i], y[j], strict=True)] for i, j in enumerate(other)]
    return [[(1 - smoothing) * v + smoothing / outcomes for v in row] for row in y]


@pytest.mark.parametrize("mix", [None, MIX])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [HARD, SOFT])
@pytest.mark.parametrize(("weights", "adjustment"), [(None, None), (W, None), (None, A), (W, A)])
def test_softmax_cross_entropy(weights, adjustment, labels: Tensor, smoothing: float, mix: Mix | None) -> None:
    w, a = weights or [1.0] * N, adjustment or [0.0] * N
    expected = 0.0
    for z, y in zip(LOGITS.tolist(), rows(labels, mix, smoothing, N), strict=True):
        p = softmax([v + s for v, s in zip(z, a, strict=True)])
        expected -= sum(w[n] * y[n] * math.log(p[n]) for n in range(N)) / B
    ce = CrossEntropy(weights and double(weights), adjustment and double(adjustment))
    assert ce(LOGITS, labels, smoothing, mix).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mix", [None, MIX])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("asymmetric", [(), (4.0, 1.0, 0.05), (2.0, 0.5, 0.0)])
@pytest.mark.parametrize(("weights", "adjustment"), [(None, None), (W, A)])
def test_binary_cross_entropy(weights, adjustment, asymmetric, smoothing: float, mix: Mix | None) -> None:
    w, a = weights or [1.0] * N, adjustment or [0.0] * N
    down, up, margin = asymmetric or (0.0, 0.0, 0.0)
    expected = 0.0
    for z, y in zip(LOGITS.tolist(), rows(MANY, mix, smoothing, 2), strict=True):
        for n in range(N):
            p = 1 / (1 + math.exp(-z[n] - a[n]))
            q = max(p - margin, 0)
            expected -= w[n] * y[n] * (1 - p) ** up * math.log(p) / B
            expected -= (1 - y[n]) * q**down * math.log(1 - q) / B
    ce = BinaryCrossEntropy(weights and double(weights), adjustment and double(adjustment), asymmetric)
    assert ce(LOGITS, MANY, smoothing, mix).item() == pytest.approx(expected, rel=1e-12)


def test_binary_divergence_and_its_constant_teacher() -> None:
    student, teacher = LOGITS.clone().requires_grad_(), LOGITS.flip(0).clone().requires_grad_()
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(s, t, strict=True):
            p, q = 1 / (1 + math.exp(-b / 3)), 1 / (1 + math.exp(-a / 3))
            expected += 9 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))) / B
    found = BinaryCrossEntropy().divergence(student, teacher, 3.0)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert BinaryCrossEntropy().divergence(student, teacher, 3.0, scale=False).item() == pytest.approx(expected / 9)
    found.backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("asymmetric", [(), (4.0, 1.0, 0.05), (0.5, 0.5, 0.1)])
def test_binary_losses_have_finite_slopes_at_extreme_logits(asymmetric: tuple[float, ...]) -> None:
    z = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    loss = BinaryCrossEntropy(asymmetric=asymmetric)(z, torch.tensor([[0.0, 1.0, 1.0]]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_weights_and_priors_in_losses_of_another_form() -> None:
    ce, w, adjusted = CrossEntropy(double(W), double(A)), double(W), LOGITS + double(A)
    p, y = adjusted.softmax(1), HARD
    own = p[range(B), y]
    assert torch.allclose(focal_loss(LOGITS, y, gamma=2.0, ce=ce), -(w[y] * (1 - own) ** 2 * own.log()).mean())
    past = SOFT.flip(0)
    target = 0.4 * torch.eye(N, dtype=torch.float64)[y] + 0.6 * past
    assert torch.allclose(pskd_loss(LOGITS, y, past, alpha=0.6, ce=ce), -(w * target * p.log()).sum(1).mean())
    others = 0.8 * torch.eye(N, dtype=torch.float64)[y] + 0.1 * (1 - torch.eye(N, dtype=torch.float64)[y])
    smoothed = label_smoothing_loss(LOGITS, y, epsilon=0.2, spread="others", ce=ce)
    assert torch.allclose(smoothed, -(w * others * p.log()).sum(1).mean())
    mixed = MIX.labels(y, N)
    bce = -(w * (mixed * p.log() + (1 - mixed) * (1 - p).log())).mean()
    assert torch.allclose(mixed_bce_loss(LOGITS, y, MIX, ce), bce)
    e, rows_of_head = torch.randn(B, 2, dtype=torch.float64), torch.randn(N, 2, dtype=torch.float64)
    virtual = torch.cat([adjusted, (rows_of_head[y].norm(dim=1) * e.norm(dim=1))[:, None]], 1).softmax(1)
    found = virtual_softmax_loss(LOGITS, e, rows_of_head, y, ce)
    assert torch.allclose(found, -(w[y] * virtual[range(B), y].log()).mean())


def test_binary_label_smoothing_spreads_over_the_other_of_two_outcomes() -> None:
    found = label_smoothing_loss(LOGITS, MANY, epsilon=0.1, spread="others", ce=BinaryCrossEntropy())
    expected = BinaryCrossEntropy()(LOGITS, 0.9 * MANY + 0.1 * (1 - MANY))
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_weighs_classes_and_adjusts_logits(name: str) -> None:
    method = make(name, make_toy())
    images, labels = batch()
    extra, draws = extras(method.needs, images), method.draw(images)
    state = {key: value.clone() for key, value in method.state_dict().items()}

    def loss(ce: CrossEntropy) -> float:
        method.load_state_dict(state)
        method.use(ce)
        return method(images, labels, draws, **extra)["loss"].item()

    ones, spread = torch.ones(5, dtype=torch.float64), double([0.1, 1, 2, 3, 5])
    plain = loss(CrossEntropy())
    assert loss(CrossEntropy(ones, 0 * ones)) == pytest.approx(plain, rel=1e-9)
    assert loss(CrossEntropy(spread)) != pytest.approx(plain, rel=1e-3)
    assert loss(CrossEntropy(None, spread)) != pytest.approx(plain, rel=1e-3)


def test_criterion_adds_nothing_to_a_checkpoint() -> None:
    method = make("mixup", make_toy())
    before = list(method.state_dict())
    method.use(CrossEntropy(double([1.0] * 5)))
    assert list(method.state_dict()) == before


@pytest.mark.parametrize("name", METHODS)
def test_methods_for_several_labels_take_them_and_others_refuse(name: str) -> None:
    method = make(name, make_toy())
    if name not in SEVERAL:
        with pytest.raises(UserError, match="one label an image; with several, train with baseline"):
            method.use(BinaryCrossEntropy())
        return
    method.use(BinaryCrossEntropy())
    images, _ = batch()
    out = method(images, (torch.rand(4, 5) < 0.4).double(), **extras(method.needs, images))
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert out["output"].shape == (4, 5)
    with pytest.raises(UserError, match=r"floating point of shape \(4, 5\)"):
        method(images, torch.arange(4))
    with pytest.raises(UserError, match="from 0 to 1, since an image may have several"):
        method(images, torch.full((4, 5), 2.0))
