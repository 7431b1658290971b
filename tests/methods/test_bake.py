"""BAKE against loops, and its matrix inverse against the power series that it sums."""

from __future__ import annotations

import math

import pytest
import torch

from mixskd import BAKE
from mixskd.methods.bake import propagate
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, softmax
from tests.methods.support import batch, check, features, logits


def affinity(features: list[list[float]]) -> list[list[float]]:
    """Row-wise softmax of the cosines with all others; 0 on the diagonal."""
    unit = [[v / math.hypot(*e) for v in e] for e in features]
    rows = []
    for i, a in enumerate(unit):
        e = [0.0 if i == j else math.exp(sum(x * y for x, y in zip(a, b, strict=True))) for j, b in enumerate(unit)]
        rows.append([v / sum(e) for v in e])
    return rows


def series(a: list[list[float]], p: list[list[float]], omega: float, rounds: int = 400) -> list[list[float]]:
    """(1 - w) sum_t (w A)^t P: the ensemble after so many rounds of propagation."""
    term = p
    out = [[(1 - omega) * v for v in row] for row in p]
    for _ in range(rounds):
        term = [
            [omega * sum(a[i][j] * term[j][n] for j in range(len(p))) for n in range(len(p[0]))] for i in range(len(p))
        ]
        out = [[o + (1 - omega) * t for o, t in zip(*rows, strict=True)] for rows in zip(out, term, strict=True)]
    return out


@pytest.mark.parametrize("omega", [0.0, 0.5, 0.9])
def test_propagation_equals_power_series(omega: float) -> None:
    e, p = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64).softmax(1)
    q = propagate(p, e, omega)
    expected = series(affinity(e.tolist()), p.tolist(), omega)
    assert torch.allclose(q, torch.tensor(expected, dtype=torch.float64))
    assert torch.allclose(q.sum(1), torch.ones(6, dtype=torch.float64))


def test_propagation_excludes_the_image_itself() -> None:
    """Of two images each has the other as its only neighbour, however unlike they are."""
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    q = propagate(p, torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64), 0.5)
    assert torch.allclose(q, torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]], dtype=torch.float64))


def test_bake() -> None:
    images, labels = batch()
    partners = torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    every = torch.cat([images, *(partners[i] for i in range(4))])
    all_labels = [*labels.tolist(), *(y for y in labels.tolist() for _ in range(2))]
    temperature, omega = 3.0, 0.6

    def reference(moving, fixed) -> float:
        z, teacher = logits(moving.backbone, every).tolist(), logits(fixed.backbone, every).tolist()
        p = [softmax(row, temperature) for row in teacher]
        q = series(affinity(features(fixed.backbone, every).tolist()), p, omega, rounds=80)
        loss = 0.0
        for student, target, y in zip(z, q, all_labels, strict=True):
            divergence = sum(b * math.log(b / a) for a, b in zip(softmax(student, temperature), target, strict=True))
            loss += cross_entropy(student, y) + temperature**2 * divergence
        return loss / len(z)

    method = BAKE(make_toy(), partners=2, omega=omega, temperature=temperature)
    assert (method.needs.partners, method.needs.distinct_partners) == (2, True)
    out = check(method, reference, images, labels, partners=partners)
    assert out["output"].shape == (4, 5)


@pytest.mark.parametrize("omega", [0.0, 0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 3e-7)])
def test_propagation_equals_linear_solver(omega: float, dtype: torch.dtype, error: float) -> None:
    """Equal to torch's solve, however the images resemble each other; rounding grows as the system's condition does."""
    error /= 1 if dtype == torch.float64 else 1 - omega
    for spread in (1e-3, 1.0):
        e = 1 + spread * torch.randn(32, 8, dtype=torch.float64)
        p = torch.randn(32, 10, dtype=torch.float64).softmax(1)
        a = torch.nn.functional.normalize(e, dim=1)
        a = (a @ a.t() - 1e9 * torch.eye(32, dtype=torch.float64)).softmax(1)
        solved = (1 - omega) * torch.linalg.solve(torch.eye(32, dtype=torch.float64) - omega * a, p)
        assert (propagate(p.to(dtype), e.to(dtype), omega) - solved).abs().max() < error
