"""SAD against loops over positions."""

from __future__ import annotations

import math

import pytest

from mixskd import SAD
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy
from tests.methods.support import batch, check, logits


def resized(grid: list[list[float]], size: int) -> list[list[float]]:
    """Bilinear, pixel centres at half-integers, borders repeated."""
    scale = len(grid) / size

    def at(i: int) -> tuple[int, int, float]:
        place = max((i + 0.5) * scale - 0.5, 0.0)
        low = int(place)
        return low, min(low + 1, len(grid) - 1), place - low

    out = []
    for y in range(size):
        y0, y1, v = at(y)
        row = []
        for x in range(size):
            x0, x1, u = at(x)
            top = (1 - u) * grid[y0][x0] + u * grid[y0][x1]
            row.append((1 - v) * top + v * ((1 - u) * grid[y1][x0] + u * grid[y1][x1]))
        out.append(row)
    return out


def attention(feature_map: list, size: int) -> list[float]:
    side = len(feature_map[0])
    energy = [[sum(channel[y][x] ** 2 for channel in feature_map) for x in range(side)] for y in range(side)]
    flat = [v for row in resized(energy, size) for v in row]
    e = [math.exp(v - max(flat)) for v in flat]
    return [v / sum(e) for v in e]


def test_sad() -> None:
    images, labels = batch()
    gamma = 20.0

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, images).tolist()
        maps = [m.tolist() for m in moving.backbone.feature_maps(images)]
        targets = [m.tolist() for m in fixed.backbone.feature_maps(images)]
        loss = sum(cross_entropy(z[i], y) for i, y in enumerate(labels.tolist())) / 4
        for shallow, deep in zip(maps[:-1], targets[1:], strict=True):
            size = len(shallow[0][0])
            for i in range(4):
                pairs = zip(attention(shallow[i], size), attention(deep[i], size), strict=True)
                loss += gamma * sum((a - b) ** 2 for a, b in pairs) / size**2 / 4
        return loss

    out = check(SAD(make_toy(), gamma=gamma), reference, images, labels)
    assert out["attention"] > 0
    assert SAD(make_toy()).config.gamma == pytest.approx(0.1)
