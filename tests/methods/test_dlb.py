"""DLB's targets over several steps, against a loop that keeps the logits of the step before."""

from __future__ import annotations

import pytest
import torch

from mixskd import DLB, UserError
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, kl
from tests.methods.support import batch, check, logits


def make(rows: int) -> DLB:
    method = DLB(make_toy(), temperature=2.0, alpha=0.7)
    method.prepare_batch(rows)
    return method.double()


@pytest.mark.parametrize("parts", [1, 2])
def test_dlb_distils_from_logits_of_last_step(parts: int) -> None:
    """In one part or in two, of which each goes on with its own slots."""
    method, past = make(4), None
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(4):
        images, labels = batch()
        previous = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
        kept = []
        for slots in torch.arange(4).chunk(parts):
            z = logits(method.backbone, images[slots]).tolist()
            again = logits(method.backbone, previous[slots, 0]).tolist()
            new = [cross_entropy(row, int(labels[s])) for row, s in zip(z, slots, strict=True)]
            expected = sum(new) / len(new)
            if past is not None:
                old = [cross_entropy(row, past[s][1]) for row, s in zip(again, slots, strict=True)]
                expected = sum(new + old) / (2 * len(new))
                expected += sum(0.7 * kl(row, past[s][0], 2.0) for row, s in zip(again, slots, strict=True)) / len(new)
            kept += [(row, int(labels[s])) for row, s in zip(z, slots, strict=True)]
            out = method(images[slots], labels[slots], partners=previous[slots], slots=slots)
            assert out["loss"].item() == pytest.approx(expected, rel=1e-9)
            out["loss"].backward()
        past = kept
        optimizer.step()
        optimizer.zero_grad()
    assert torch.allclose(method.past, torch.tensor([row for row, _ in past], dtype=torch.float64))


def test_dlb_past_gets_no_gradient() -> None:
    images, labels = batch()
    method, previous = make(4), torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
    method.past.copy_(torch.randn(4, 5))
    method.past_labels.copy_(torch.tensor([3, 1, 0, 4]))
    past = method.past.tolist()

    def reference(moving, fixed) -> float:
        z, again = logits(moving.backbone, images).tolist(), logits(moving.backbone, previous[:, 0]).tolist()
        loss = 0.0
        for i, row in enumerate(again):
            loss += (cross_entropy(z[i], int(labels[i])) + cross_entropy(row, [3, 1, 0, 4][i])) / 8
            loss += 0.7 * kl(row, past[i], 2.0) / 4
        return loss

    check(method, reference, images, labels, partners=previous, slots=torch.arange(4))
    assert not method.past.requires_grad


def test_dlb_saves_last_batch_in_state_dict() -> None:
    method, again = make(4), make(4)
    images, labels = batch()
    method(images, labels, partners=images[:, None], slots=torch.arange(4))
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.past, method.past)
    assert torch.equal(again.past_labels, labels)
    with pytest.raises(UserError, match="call prepare_batch"):
        DLB(make_toy())(images, labels, partners=images[:, None], slots=torch.arange(4))
