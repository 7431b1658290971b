"""DKS and BYOT on the auxiliary branches, against loops over heads and images."""

from __future__ import annotations

from mixskd import BYOT, DKS
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, kl
from tests.methods.support import batch, check


def heads(method, images) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """The pooled maps and the logits of every head, the backbone's last, as nested lists."""
    pooled, logits, x = [], [], images
    stages = method.backbone.stages
    for k, stage in enumerate(stages):
        x = stage(x)
        last = k == len(stages) - 1
        aligned = x if last else method.branches.alignments[k](x)
        head = method.backbone.head if last else method.branches.heads[k]
        e = aligned.mean((2, 3))
        pooled.append(e.tolist())
        logits.append((e @ head.weight.T + head.bias).tolist())
    return pooled, logits


def test_dks() -> None:
    images, labels = batch()

    def reference(moving, fixed) -> float:
        (_, students), (_, teachers) = heads(moving, images), heads(fixed, images)
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            for m in range(3):
                loss += cross_entropy(students[m][i], y)
                loss += sum(kl(students[m][i], teachers[n][i], 1.0) for n in range(3) if n != m)
        return loss / len(labels)

    check(DKS(make_toy()).double(), reference, images, labels)


def test_byot() -> None:
    images, labels = batch()
    beta = 0.3

    def reference(moving, fixed) -> float:
        (e, z), (e_fixed, z_fixed) = heads(moving, images), heads(fixed, images)
        loss = 0.0
        for i, y in enumerate(labels.tolist()):
            loss += 0.9 * sum(cross_entropy(z[m][i], y) for m in range(3))
            for s in range(2):
                loss += 0.1 * kl(z[s][i], z_fixed[2][i], 3.0)
                loss += beta * sum((a - b) ** 2 for a, b in zip(e[s][i], e_fixed[2][i], strict=True))
        return loss / len(labels)

    check(BYOT(make_toy(), beta=beta).double(), reference, images, labels)
    assert BYOT(make_toy()).config.beta == 128 * 1e-6
