"""Grad-CAM maps are those of their formula, and shown beside the mistakes of a report."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from mixskd.backbones import build_backbone
from mixskd.backbones.averaged import average_backbone
from mixskd.errors import UserError
from mixskd.evaluation.gradcam import grad_cam
from tests.conftest import make_toy


def test_maps_of_an_average_pooling_are_weighted_by_the_classifier() -> None:
    model = make_toy().eval()
    images, classes = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 4, 2])
    with torch.no_grad():
        last = model.feature_maps(images)[-1]
        heat = torch.einsum("bchw,bc->bhw", last, model.head.weight[classes]).relu()
        wanted = interpolate(heat[:, None].float(), (16, 16), mode="bilinear", align_corners=False)[:, 0]
    found = grad_cam(model, images, classes)
    torch.testing.assert_close(found, wanted / wanted.amax((1, 2), keepdim=True))


def test_transformers_with_a_class_token_have_maps() -> None:
    found = grad_cam(build_backbone("timm/test_vit", 5, 160), torch.randn(2, 3, 160, 160), torch.tensor([0, 1]))
    assert found.shape == (2, 160, 160)
    assert found.amax((1, 2)).tolist() == [1, 1]


def test_networks_without_stages_are_refused() -> None:
    with pytest.raises(UserError, match="Grad-CAM needs the stages"):
        grad_cam(average_backbone([make_toy(), make_toy()]), torch.zeros(1, 3, 8, 8), torch.tensor([0]))
