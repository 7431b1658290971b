"""A fitted classifier within a network says what it said outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import mixskd
from mixskd.backbones import StagedBackbone, build_backbone
from mixskd.errors import UserError
from mixskd.methods import METHODS
from mixskd.probing.classifiers import Linear, logistic_regressions
from mixskd.probing.features import last_layer
from mixskd.probing.head import set_head, start_heads
from tests.conftest import make_toy


def random_linear(classes: int, channels: int) -> Linear:
    draw = np.random.default_rng(0)
    return Linear(draw.normal(size=(classes, channels)), draw.normal(size=classes))


def test_the_folded_head_gives_the_logits_of_the_pipeline() -> None:
    network = build_backbone("wrn_10_1", 3).eval()
    images, labels = torch.randn(30, 3, 16, 16), np.arange(30) % 3
    with torch.no_grad():
        features = network.pooled(network.feature_maps(images)[-1]).numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=10_000, tol=1e-9))
    expected = model.fit(features.astype(np.float64), labels).decision_function(features)
    (linear,) = logistic_regressions(features, labels, 3, (0.5,))
    set_head(network, linear)
    with torch.no_grad():
        found = network(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["mixskd", "byot", "dks", "deep_supervision"])
def test_every_head_of_a_branched_method_begins_as_the_probe(name: str) -> None:
    backbone = make_toy(stages=3, classes=5)
    backbone.pretrained = True
    method = METHODS[name](backbone).double().eval()
    linear = random_linear(5, backbone.feature_dim)
    start_heads(method, linear)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    heads = method.heads(images)
    assert len(heads) == 3
    expected = linear.logits(backbone.pooled(backbone.feature_maps(images)[-1]).detach().numpy())
    for logits in heads.values():
        np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=0, atol=1e-9)


def test_the_self_teacher_begins_as_the_probe() -> None:
    backbone = make_toy(stages=3, classes=5)
    backbone.pretrained = True
    method = mixskd.MixSKD(backbone).double().eval()
    linear = random_linear(5, backbone.feature_dim)
    start_heads(method, linear)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    maps = method.branches(backbone.feature_maps(images))
    pooled = [backbone.pooled(one) for one in maps]
    said = method.self_teacher(maps, pooled).detach().numpy()
    np.testing.assert_allclose(said, linear.logits(pooled[-1].detach().numpy()), rtol=0, atol=1e-7)


def test_a_classifier_that_does_not_end_in_a_linear_layer_is_refused() -> None:
    network = StagedBackbone([nn.Conv2d(3, 4, 1)], nn.Sequential(nn.Linear(4, 3), nn.Tanh()), name="odd")
    with pytest.raises(UserError, match="a probe of odd needs a linear layer at the end"):
        last_layer(network)


def test_a_classifier_without_a_bias_is_refused() -> None:
    network = build_backbone("wrn_10_1", 3)
    mixskd.VirtualSoftmax(network)
    with pytest.raises(UserError, match="with a bias"):
        last_layer(network)
