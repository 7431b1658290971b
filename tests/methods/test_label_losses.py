"""Label smoothing, virtual softmax, focal loss and confidence penalty against loops over images and classes."""

from __future__ import annotations

import math

import pytest
import torch

from mixskd import BAKE, ConfidencePenalty, Focal, LabelSmoothing, UserError, VirtualSoftmax
from mixskd.backbones import StagedBackbone
from mixskd.config import OptimConfig
from mixskd.methods import METHODS
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, soft_cross_entropy, softmax
from tests.methods.support import batch, check, features, logits, make


@pytest.mark.parametrize("spread", ["others", "all"])
@pytest.mark.parametrize(("classes", "epsilon"), [(5, 0.1), (2, 0.9), (3, 0.0)])
def test_label_smoothing(spread: str, classes: int, epsilon: float) -> None:
    images, labels = batch(classes=classes)

    def reference(moving, fixed) -> float:
        loss = 0.0
        for z, y in zip(logits(moving.backbone, images).tolist(), labels.tolist(), strict=True):
            if spread == "others":
                target = [1 - epsilon if n == y else epsilon / (classes - 1) for n in range(classes)]
            else:
                target = [(1 - epsilon) * (n == y) + epsilon / classes for n in range(classes)]
            loss += soft_cross_entropy(z, target) / len(labels)
        return loss

    method = LabelSmoothing(make_toy(classes=classes), epsilon=epsilon, spread=spread)
    check(method, reference, images, labels)


def test_virtual_softmax() -> None:
    images, labels = batch()

    def reference(moving, fixed) -> float:
        head, loss = moving.backbone.head.weight.tolist(), 0.0
        for e, y in zip(features(moving.backbone, images).tolist(), labels.tolist(), strict=True):
            z = [sum(w * v for w, v in zip(row, e, strict=True)) for row in head]
            z.append(math.hypot(*head[y]) * math.hypot(*e))
            loss += cross_entropy(z, y) / len(labels)
        return loss

    out = check(VirtualSoftmax(make_toy()), reference, images, labels)
    assert out["output"].shape == (4, 5)  # the virtual class is not in the output


def test_virtual_softmax_keeps_bias_at_zero() -> None:
    method = VirtualSoftmax(make_toy())
    images, labels = batch()
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, weight_decay=OptimConfig().weight_decay)
    for _ in range(3):
        method(images, labels)["loss"].backward()
        optimizer.step()
    assert not method.backbone.head.bias.any()
    again = VirtualSoftmax(make_toy())
    again.load_state_dict(method.state_dict())
    assert not again.backbone.head.bias.any()
    assert not again.backbone.head.bias.requires_grad
    assert torch.equal(again.backbone.eval()(images), method.backbone.eval()(images))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss(gamma: float) -> None:
    images, labels = batch()

    def reference(moving, fixed) -> float:
        p = [softmax(z)[y] for z, y in zip(logits(moving.backbone, images).tolist(), labels.tolist(), strict=True)]
        return -sum((1 - q) ** gamma * math.log(q) for q in p) / len(p)

    check(Focal(make_toy(), gamma=gamma), reference, images, labels)


def fixed_logits(z: list[float]) -> StagedBackbone:
    """A backbone in fp32 whose head's bias are the logits ``z``."""
    backbone = make_toy(1, len(z)).float()
    with torch.no_grad():
        backbone.head.weight.zero_()
        backbone.head.bias.copy_(torch.tensor(z))
    return backbone


@pytest.mark.parametrize("name", ["focal", "label_smoothing", "confidence_penalty", "tfkd_reg", "virtual_softmax"])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.5}])
@pytest.mark.parametrize("label", [0, 1])
def test_certain_predictions_have_finite_loss_and_gradient(name: str, options: dict, label: int) -> None:
    if options and name != "focal":
        return
    method = make(name, fixed_logits([1000.0, -1000.0]), **options)
    loss = method(torch.randn(2, 3, 8, 8), torch.full((2,), label))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_confidence_penalty() -> None:
    images, labels = batch()

    def reference(moving, fixed) -> float:
        loss = 0.0
        for z, y in zip(logits(moving.backbone, images).tolist(), labels.tolist(), strict=True):
            p = softmax(z)
            loss += (cross_entropy(z, y) + 0.1 * sum(q * math.log(q) for q in p)) / len(labels)
        return loss

    check(ConfidencePenalty(make_toy()), reference, images, labels)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("label_smoothing", {"epsilon": 1.0}, "epsilon must be 0 or above and below 1"),
        ("label_smoothing", {"spread": "some"}, "spread must be others or all, not 'some'"),
        ("focal", {"gamma": -1.0}, "gamma must be 0 or above"),
        ("confidence_penalty", {"beta": -0.1}, "beta must be 0 or above"),
        ("bake", {"omega": 1.0}, "omega must be 0 or above and below 1"),
        ("bake", {"partners": 0}, "partners must be 1 or above"),
        ("cutmix", {"probability": 0.0}, "probability must be above 0"),
        ("cutmix", {"alpha": 0.0}, "alpha must be above 0"),
        ("manifold_mixup", {"depth": 4}, "depth must be from 0 to 3"),
        ("manifold_mixup", {"loss": "mse"}, "loss must be ce or bce, not 'mse'"),
        ("pskd", {"alpha": 1.5}, "alpha must be from 0 to 1"),
        ("tfkd_reg", {"correct": 0.0}, "correct must be above 0 and at most 1"),
        ("cskd_mixup", {"alpha": 0.0}, "alpha must be above 0"),
        ("frskd_mixup", {"mix_alpha": 0.0}, "mix_alpha must be above 0"),
        ("frskd", {"width": 0}, "width must be 1 or above"),
        ("dks", {"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_methods_reject_invalid_hyper_parameters(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        METHODS[name](make_toy(), **options)


def test_missing_input_is_named_in_error() -> None:
    with pytest.raises(UserError, match=r"needs partners: call method\(images, labels, partners="):
        BAKE(make_toy())(*batch())
