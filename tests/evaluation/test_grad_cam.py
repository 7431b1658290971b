"""Grad-CAM against its equation in NumPy, and the networks that have none."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mixskd.backbones import StagedBackbone, build_backbone
from mixskd.evaluation.grad_cam import grad_cam
from tests.conftest import make_toy


def test_it_is_the_rectified_sum_of_maps_by_their_mean_gradients() -> None:
    """The gradient of a linear classifier of averages is its weight divided by the number of positions."""
    model, images = make_toy().eval(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    maps = model.feature_maps(images)[-1].detach().numpy()
    weights = model.head.weight.detach().numpy()
    for i, chosen in enumerate((3, 1)):
        wanted = np.maximum(np.einsum("k,khw->hw", weights[chosen], maps[i]), 0)
        heat = grad_cam(model, images, [3, 1])
        assert heat is not None
        assert heat.shape == (2, 16, 16)
        wanted = nn.functional.interpolate(
            torch.from_numpy(wanted / wanted.max())[None, None], (16, 16), mode="bilinear"
        )
        assert torch.allclose(heat[i], wanted[0, 0], rtol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_place_that_speaks_for_a_class_is_light() -> None:
    """A network that counts red for one class and green for the other."""
    head = nn.Linear(3, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    model = StagedBackbone([nn.Identity()], head, name="counts")
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, :4], images[0, 1, 4:] = 1, 1
    for chosen, light in enumerate((slice(4), slice(4, None))):
        heat = grad_cam(model, images, [chosen])
        assert heat is not None
        assert (heat[0, light] == 1).all()
        assert heat.sum() == 32


def test_networks_without_positions_have_none() -> None:
    assert grad_cam(build_backbone("timm/test_vit", 3, 160).eval(), torch.randn(1, 3, 160, 160), [0]) is None
    assert grad_cam(build_backbone("ensemble/wrn_10_1+wrn_10_1", 3).eval(), torch.randn(1, 3, 32, 32), [0]) is None
    assert grad_cam(make_toy().float().eval(), torch.randn(1, 3, 2, 2), [0]) is None  # a map of one position
