"""USKD and Zipf's label smoothing, which give the other classes soft labels by their rank, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch.nn import functional as F

from mixskd import USKD, UserError, ZipfLS
from mixskd.methods.parts.zipf import ranks
from tests.conftest import make_toy
from tests.methods.reference import affine, cross_entropy, pool, soft_cross_entropy, softmax
from tests.methods.support import batch, check

Vector = list[float]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 4), min_size=2, max_size=9))
def test_equal_scores_share_lowest_rank(scores: list[int]) -> None:
    expected = rankdata([-s for s in scores], method="min")
    assert ranks(torch.tensor([scores], dtype=torch.float64))[0].tolist() == expected.tolist()


def place(scores: Vector, n: int) -> int:
    return 1 + sum(s > scores[n] for s in scores)


def others(z: Vector, y: int) -> list[int]:
    return [n for n in range(len(z)) if n != y]


def zipf(scores: Vector, y: int, power: float = 1.0) -> dict[int, float]:
    weights = {n: place(scores, n) ** -power for n in others(scores, y)}
    return {n: w / sum(weights.values()) for n, w in weights.items()}


def softmax_of_others(z: Vector, y: int) -> dict[int, float]:
    return dict(zip(others(z, y), softmax([z[n] for n in others(z, y)]), strict=True))


def maps_of(backbone, images) -> list[list]:
    """The maps of every stage, as nested lists by image."""
    found = []
    for stage in backbone.stages:
        images = stage(images)
        found.append(images.tolist())
    return found


def linear(layer) -> tuple[list[Vector], Vector]:
    return layer.weight.tolist(), layer.bias.tolist()


def uskd_scores(z: Vector, w: Vector, y: int, ranking: str) -> Vector:
    p, q = softmax(z), softmax(w)
    if ranking == "released":
        log_p = [math.log(v) for v in p]
        return [q[n] / (1 - q[y] + 1e-6) + log_p[n] / (1 - log_p[y] + 1e-6) for n in range(len(z))]
    return [-1.0 if n == y else p[n] / (1 - p[y]) + q[n] / (1 - q[y]) for n in range(len(z))]


@pytest.mark.parametrize("ranking", ["probability", "released"])
def test_uskd(ranking: str) -> None:
    images, labels = batch(6)
    method = USKD(make_toy(), alpha=0.7, beta=0.3, mu=0.2, ranking=ranking).double()

    def reference(moving, fixed) -> float:
        maps, still = maps_of(moving.backbone, images), maps_of(fixed.backbone, images)
        past = [affine(*linear(fixed.backbone.head), pool(f)) for f in still[-1]]
        squares = [softmax(z)[y] ** 2 for z, y in zip(past, labels.tolist(), strict=True)]
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            z = affine(*linear(moving.backbone.head), pool(maps[-1][i]))
            w = affine(*linear(moving.weak_head), pool(maps[-2][i]))
            w_fixed = affine(*linear(fixed.weak_head), pool(still[-2][i]))
            soft = zipf(uskd_scores(past[i], w_fixed, y, ranking), y)
            predicted = softmax_of_others(z, y)
            smooth = [0.9 * (n == y) + 0.1 / 5 for n in range(5)]
            loss += cross_entropy(z, y)
            loss += 0.7 * (1 + squares[i] - sum(squares) / 6) * cross_entropy(z, y)
            loss -= 0.3 * sum(soft[n] * math.log(predicted[n]) for n in soft)
            loss += 0.2 * soft_cross_entropy(w, smooth)
        return loss / 6

    check(method, reference, images, labels)


def test_uskd_trains_weak_classifier_by_labels_only() -> None:
    images, labels = batch()
    method = USKD(make_toy()).double()
    out = method(images, labels)
    parameters = list(method.weak_head.parameters())
    for term in ("cls", "target", "non_target"):
        gradients = torch.autograd.grad(out[term], parameters, retain_graph=True, allow_unused=True)
        assert gradients == (None, None)
    assert torch.autograd.grad(out["weak_cls"], method.backbone.stages[0][0].weight)[0].any()
    assert set(method.heads(images)) == {"weak", "backbone"}
    with pytest.raises(UserError, match="two stages or more"):
        USKD(make_toy(1))


def count_votes(method, maps: list[list], depth: int, *, upsample: bool) -> list[Vector]:
    """The votes of each image, position by position; bilinear doubling by torch, which is not ours."""
    heads = [*method.stage_heads, method.backbone.head]
    found = []
    for i in range(len(maps[-1])):
        counts = [0.0] * 5
        for head, feature_maps in zip(heads, maps[len(maps) - depth :], strict=True):
            x = torch.tensor(feature_maps[i], dtype=torch.float64)[None]
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[0] if upsample else x[0]
            for row in range(x.shape[1]):
                for column in range(x.shape[2]):
                    z = affine(*linear(head), x[:, row, column].tolist())
                    counts[z.index(max(z))] += 1
        found.append(counts)
    return found


@pytest.mark.parametrize(
    ("depth", "dense", "upsample", "power"), [(1, True, True, 1.0), (3, True, False, 2.0), (2, False, True, 0.5)]
)
def test_zipf_ls(depth: int, dense: bool, upsample: bool, power: float) -> None:
    images, labels = batch()
    method = ZipfLS(
        make_toy(), depth=depth, dense=dense, upsample=upsample, power=power, weight=0.6, alpha=0.4
    ).double()

    def reference(moving, fixed) -> float:
        maps, still = maps_of(moving.backbone, images), maps_of(fixed.backbone, images)
        if dense:
            scores = count_votes(fixed, still, depth, upsample=upsample)
        else:
            scores = [affine(*linear(fixed.backbone.head), pool(f)) for f in still[-1]]
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            z = affine(*linear(moving.backbone.head), pool(maps[-1][i]))
            soft, predicted = zipf(scores[i], y, power), softmax_of_others(z, y)
            loss += cross_entropy(z, y) + 0.6 * sum(q * math.log(q / predicted[n]) for n, q in soft.items())
            for head, feature_maps in zip(moving.stage_heads, maps[len(maps) - depth : -1], strict=True):
                loss += 0.4 * cross_entropy(affine(*linear(head), pool(feature_maps[i])), y)
        return loss / 4

    out = check(method, reference, images, labels)
    assert ("stage_cls" in out) == (depth > 1)
    assert list(method.heads(images)) == [*(f"stage{k}" for k in range(4 - depth, 3)), "backbone"]


def test_zipf_ls_rejects_too_many_stages() -> None:
    with pytest.raises(UserError, match="depth must be from 1 to 3"):
        ZipfLS(make_toy(), depth=4)
    with pytest.raises(UserError, match="power must be above 0"):
        ZipfLS(make_toy(), power=0.0)
