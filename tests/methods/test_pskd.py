"""PS-KD's targets and its memory of past predictions over epochs."""

from __future__ import annotations

import pytest
import torch

from mixskd import PSKD, UserError
from tests.conftest import make_toy
from tests.methods.reference import soft_cross_entropy, softmax
from tests.methods.support import batch, check, logits

EPOCHS, ALPHA = 3, 0.8


def make(images: int) -> PSKD:
    method = PSKD(make_toy())
    method.make_room(images)
    return method.double()


def test_pskd_targets_mix_label_and_last_epochs_prediction() -> None:
    images, labels = batch(6)
    method = make(6)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    past: dict[int, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS):
        alpha = ALPHA * (epoch + 1) / EPOCHS
        for indices in torch.randperm(6, generator=generator).split(2):
            z = logits(method.backbone, images[indices]).tolist()
            expected = 0.0
            for row, index in zip(z, indices.tolist(), strict=True):
                hard = [float(n == int(labels[index])) for n in range(5)]
                soft = past.get(index, hard)
                target = [(1 - alpha) * h + alpha * s for h, s in zip(hard, soft, strict=True)]
                expected += soft_cross_entropy(row, target) / 2
                past[index] = softmax(row)
            progress = torch.tensor((epoch + 1) / EPOCHS, dtype=torch.float64)
            out = method(images[indices], labels[indices], indices=indices, progress=progress)
            assert out["loss"].item() == pytest.approx(expected, rel=1e-9)
            out["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(method.past, torch.tensor([past[i] for i in range(6)], dtype=torch.float64))


def test_pskd_target_gets_no_gradient() -> None:
    images, labels = batch()
    method = make(4)
    method.past.copy_(torch.randn(4, 5).softmax(1))
    past = method.past.tolist()

    def reference(moving, fixed) -> float:
        loss = 0.0
        for i, row in enumerate(logits(moving.backbone, images).tolist()):
            target = [0.6 * (n == int(labels[i])) + 0.4 * past[3 - i][n] for n in range(5)]
            loss += soft_cross_entropy(row, target) / 4
        return loss

    progress = torch.tensor(0.5, dtype=torch.float64)
    out = check(method, reference, images, labels, indices=torch.tensor([3, 2, 1, 0]), progress=progress)
    assert not method.past.requires_grad
    assert torch.allclose(method.past.flip(0), out["output"].softmax(1))


def test_pskd_without_past_is_cross_entropy() -> None:
    images, labels = batch()
    method = make(4)
    z = logits(method.backbone, images).tolist()
    out = method(images, labels, indices=torch.arange(4), progress=torch.tensor(1.0))
    hard = [[float(n == y) for n in range(5)] for y in labels.tolist()]
    assert out["loss"].item() == pytest.approx(sum(map(soft_cross_entropy, z, hard)) / 4)


def test_pskd_saves_predictions_in_state_dict() -> None:
    method, again = make(4), make(4)
    method.past.copy_(torch.randn(4, 5))
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.past, method.past)
    with pytest.raises(UserError, match="call make_room"):
        PSKD(make_toy())(*batch(), indices=torch.arange(4), progress=torch.tensor(0.5))
