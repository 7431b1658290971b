"""Online label smoothing: the loss, the mean of correct predictions, and the end of an epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixskd
from mixskd import OLS
from mixskd.config import OptimConfig
from mixskd.data.batch import Batch
from mixskd.methods.ols import soft_labels_of_epoch
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.engine import Engine
from mixskd.training.step import build_step
from tests.conftest import make_toy, make_toy_without_norm
from tests.methods.reference import cross_entropy, soft_cross_entropy, softmax
from tests.methods.support import batch, check, logits


def test_the_loss_is_that_of_hard_and_soft_labels() -> None:
    images, labels = batch()
    alpha, soft = 0.3, torch.rand(5, 5, dtype=torch.float64).softmax(1)

    def reference(moving, fixed) -> float:
        loss = 0.0
        for z, y in zip(logits(moving.backbone, images).tolist(), labels.tolist(), strict=True):
            loss += (alpha * cross_entropy(z, y) + (1 - alpha) * soft_cross_entropy(z, soft[y].tolist())) / 4
        return loss

    method = OLS(make_toy(), alpha=alpha).double()
    method.soft.copy_(soft)
    check(method, reference, images, labels)


def test_soft_labels_are_the_means_of_correct_predictions_of_the_epoch_before() -> None:
    method = OLS(make_toy()).double()
    method.end_epoch()  # uniform in float64
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3)
    soft = [[0.2] * 5 for _ in range(5)]
    for _ in range(3):
        sums, counts = [[0.0] * 5 for _ in range(5)], [0] * 5
        for _ in range(4):
            images, labels = batch(8)
            z = logits(method.backbone, images).tolist()
            expected = sum(
                0.5 * cross_entropy(row, y) + 0.5 * soft_cross_entropy(row, soft[y])
                for row, y in zip(z, labels.tolist(), strict=True)
            )
            for row, y in zip(z, labels.tolist(), strict=True):
                if max(range(5), key=row.__getitem__) == y:
                    sums[y] = [a + b for a, b in zip(sums[y], softmax(row), strict=True)]
                    counts[y] += 1
            loss = method(images, labels)["loss"]
            assert loss.item() == pytest.approx(expected / 8, rel=1e-9)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        method.end_epoch()
        soft = [[s / n for s in row] if n else [0.2] * 5 for row, n in zip(sums, counts, strict=True)]
        assert 0 < sum(counts) < 32
        torch.testing.assert_close(method.soft, torch.tensor(soft, dtype=torch.float64))
        assert not method.sums.any()
        assert not method.counts.any()


def test_a_row_above_the_ceiling_is_kept_and_a_class_without_hits_is_uniform() -> None:
    before = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.02, 0.03, 0.95]])
    sums, counts = torch.tensor([[1.0, 0.5, 0.5], [0.0, 3.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([2.0, 4.0, 0.0])
    uniform = [1 / 3] * 3
    free = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25], uniform])
    torch.testing.assert_close(soft_labels_of_epoch(before, sums, counts), free)
    kept = torch.tensor([[0.9, 0.05, 0.05], [0.0, 0.75, 0.25], uniform])
    torch.testing.assert_close(soft_labels_of_epoch(before, sums, counts, ceiling=0.88), kept)


def test_parts_of_a_batch_give_the_sums_of_the_whole() -> None:
    def sums(accumulate: int) -> torch.Tensor:
        torch.manual_seed(0)
        method = OLS(make_toy_without_norm())
        images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
        build_step(method, OptimConfig(), torch.device("cpu"), Engine(), accumulate)(Batch(images, labels, {}), 0.1, 0)
        return method.sums

    assert sums(1).sum() > 0
    torch.testing.assert_close(sums(1), sums(4))


def test_the_trainer_ends_epochs(tmp_path: Path, npz: Path) -> None:
    run = {"epochs": 1, "batch_size": 4, "progress": False, "precision": "fp32"}
    mixskd.train(data=str(npz), backbone="wrn_10_1", method="ols", run=run, out=str(tmp_path / "run"))
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["method"]
    assert not state["counts"].any()
    assert not torch.equal(state["soft"], torch.full_like(state["soft"], 1 / 3))
    torch.testing.assert_close(state["soft"].sum(1), torch.ones(3))
