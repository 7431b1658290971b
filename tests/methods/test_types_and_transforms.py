"""Every method in pure half precision, with ``torch.func``, and with probabilities as labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from mixskd import UserError, build_backbone
from mixskd.methods import METHODS, Method
from tests.conftest import make_toy, make_toy_without_norm
from tests.methods.support import extras, make

LABELS = torch.arange(4) % 5
# Each forward pass writes to a table or to sums.
NOT_PER_SAMPLE = ("dlb", "pskd", "ols")


def halved(name: str, dtype: torch.dtype, backbone: str = "wrn_10_1", size: int = 8) -> dict[str, Tensor]:
    """The losses of a step in ``dtype`` alone, after its backward pass."""
    method = make(name, build_backbone(backbone, 5, size if "vit" in backbone else None)).to(dtype)
    images = torch.randn(4, 3, size, size, dtype=dtype)
    out = method(images, LABELS, **extras(method.needs, images))
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in method.parameters() if p.requires_grad)
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", METHODS)
def test_pure_half_precision_with_losses_in_fp32(name: str, dtype: torch.dtype) -> None:
    out = halved(name, dtype)
    terms = {key: value for key, value in out.items() if key != "output"}
    assert out["output"].dtype == dtype
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("backbone", ["hcgnet_a1", "densenet_40_12", "timm/test_vit", "timm/test_convnext"])
@pytest.mark.parametrize("name", ["mixskd", "manifold_mixup", "virtual_softmax"])
def test_pure_half_precision_on_other_backbones(name: str, backbone: str) -> None:
    assert halved(name, torch.bfloat16, backbone, 8 if "timm" not in backbone else 64)["loss"].isfinite()


def given(method: Method, images: Tensor) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    return (images, LABELS, method.draw(images)), extras(method.needs, images)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_torch_func_are_those_of_autograd(name: str) -> None:
    method = make(name, make_toy())
    args, extra = given(method, torch.randn(4, 3, 8, 8, dtype=torch.float64))
    trained = {key: p.detach().clone() for key, p in method.named_parameters() if p.requires_grad}
    frozen = {key: x.clone() for key, x in method.state_dict().items() if key not in trained}

    def loss(parameters: dict[str, Tensor], state: dict[str, Tensor], args: Any, extra: dict[str, Tensor]) -> Tensor:
        return functional_call(method, parameters | state, args, extra)["loss"]

    gradients = grad(loss)(trained, frozen, args, extra)
    method(*args, **extra)["loss"].backward()
    for key, p in method.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(gradients[key], p.grad)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_PER_SAMPLE])
def test_gradients_of_single_images_with_vmap(name: str) -> None:
    method = make(name, make_toy_without_norm()).eval()
    images = torch.randn(4, 3, 8, 8)
    extra = extras(method.needs, images)
    draws = method.draw(images[:1])
    trained = {key: p.detach() for key, p in method.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor, extra: dict[str, Tensor]) -> Tensor:
        alone = {key: x if x.ndim == 0 else x[None] for key, x in extra.items()}
        return functional_call(method, parameters, (image[None], label[None], draws), alone)["loss"]

    places = {key: None if x.ndim == 0 else 0 for key, x in extra.items()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0, places))(trained, images, LABELS, extra)
    for i in range(2):
        alone = {key: x if x.ndim == 0 else x[i : i + 1] for key, x in extra.items()}
        method.zero_grad()
        method(images[i : i + 1], LABELS[i : i + 1], draws, **alone)["loss"].backward()
        for key, p in method.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(gradients[key][i], p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_probabilities_as_labels_work_or_are_rejected(name: str) -> None:
    """One-hot vectors give the loss of their class indices, and each loss is linear in the labels."""
    method = make(name, make_toy())
    (images, labels, draws), extra = given(method, torch.randn(4, 3, 8, 8, dtype=torch.float64))
    one_hot = torch.eye(5, dtype=torch.float64)[labels]
    if not method.soft_labels:
        with pytest.raises(UserError, match=r"this method takes no probabilities: give labels\.argmax\(1\)"):
            method(images, one_hot, draws, **extra)
        return
    state = {key: x.clone() for key, x in method.state_dict().items()}

    def loss(labels: Tensor) -> float:
        method.load_state_dict(state)
        return method(images, labels, draws, **extra)["loss"].item()

    assert loss(one_hot) == pytest.approx(loss(labels), rel=1e-12)
    other = torch.softmax(torch.randn(4, 5, dtype=torch.float64), 1)
    assert loss(0.3 * one_hot + 0.7 * other) == pytest.approx(0.3 * loss(one_hot) + 0.7 * loss(other), rel=1e-9)


@pytest.mark.parametrize("wrong", [torch.full((4, 5), 1.0), torch.tensor([[2.0, -1, 0, 0, 0]] * 4)])
def test_rows_that_are_not_probabilities_are_rejected(wrong: Tensor) -> None:
    with pytest.raises(UserError, match="must be probabilities: 0 or above, with a sum of 1"):
        make("baseline", make_toy())(torch.randn(4, 3, 8, 8).double(), wrong)
