"""Scores of several labels an image against scikit-learn, thresholds against all others, and two processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor, nn

from mixskd.runtime.distributed import join
from mixskd.tasks.metrics import label_scores
from mixskd.tasks.multilabel import MultiLabel
from mixskd.tasks.scoring import metric_values, score
from mixskd.tasks.thresholds import best_threshold
from tests.processes import run_two

CPU = torch.device("cpu")


def outputs(images: int = 41, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits with ties, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, classes, generator=generator) < 0.3).float()
    return (torch.randn(images, classes, generator=generator) + labels).mul(4).round() / 4, labels


def batches(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Batches of 8; the model is the identity."""
    return list(zip(logits.split(8), labels.split(8), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    logits, labels = outputs(seed=seed)
    task = MultiLabel(4, [0.3, 0.5, 0.6, 0.9])
    found = score(nn.Identity(), batches(logits, labels), task, CPU)
    p, y = logits.double().sigmoid().numpy(), labels.numpy().astype(int)
    named = p >= np.array(task.thresholds)
    assert found["map"] / 100 == pytest.approx(average_precision_score(y, p, average="macro"), abs=1e-6)
    assert found["f1"] / 100 == pytest.approx(f1_score(y, named, average="micro"), abs=1e-6)
    assert found["f1_macro"] / 100 == pytest.approx(f1_score(y, named, average="macro", zero_division=0), abs=1e-6)
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1).mean()
    assert found["loss"] == pytest.approx(entropy, rel=1e-12)


def test_class_without_images_takes_no_part_in_means() -> None:
    logits, labels = outputs()
    labels[:, 2] = 0
    found = label_scores(logits.double().sigmoid(), labels.long(), torch.full((4,), 0.5))
    seen = [0, 1, 3]
    assert found["map"].item() == pytest.approx(found["ap"][seen].mean().item())
    assert found["f1_macro"].item() == pytest.approx(found["class_f1"][seen].mean().item())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.55, 0.7, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_has_a_higher_f1(images: list[tuple[float, bool]]) -> None:
    p, y = (torch.tensor(column) for column in zip(*images, strict=True))
    found = best_threshold(p.double(), y.long())
    if not y.any():
        assert found == 0.5
        return

    def f1(threshold: float) -> float:
        return float(f1_score(y.numpy(), (p >= threshold).numpy(), zero_division=0))

    assert f1(found) == pytest.approx(max(f1(t) for t in (0.0, 0.15, 0.25, 0.4, 0.6, 0.8, 0.95)))


def test_fitted_thresholds_are_those_of_the_whole_split() -> None:
    logits, labels = outputs()
    task = MultiLabel(4)
    before = score(nn.Identity(), batches(logits, labels), task, CPU)
    task.fit(metric_values(nn.Identity(), batches(logits, labels), task, CPU))
    assert task.thresholds == [
        best_threshold(p, y.long()) for p, y in zip(logits.double().sigmoid().T, labels.T, strict=False)
    ]
    after = score(nn.Identity(), batches(logits, labels), task, CPU)
    assert after["f1_macro"] > before["f1_macro"]
    assert after["map"] == before["map"]


def on_two(folder: Path) -> None:
    """The thresholds and scores that each process finds on its part of the images."""
    with join("cpu") as world:
        results = []
        for images in (41, 1):  # of one image the second process has none
            task = MultiLabel(4)
            mine = [x[world.rank :: world.size] for x in outputs(images)]
            task.fit(metric_values(nn.Identity(), batches(*mine), task, CPU))
            results.append([task.thresholds, score(nn.Identity(), batches(*mine), task, CPU)])
        (folder / f"{world.rank}.json").write_text(json.dumps(results))


@pytest.mark.long
def test_two_processes_find_the_scores_and_thresholds_of_one(tmp_path: Path) -> None:
    run_two(tmp_path, on_two, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for images, mine, others in zip((41, 1), first, second, strict=True):
        task, (logits, labels) = MultiLabel(4), outputs(images)
        task.fit(metric_values(nn.Identity(), batches(logits, labels), task, CPU))
        expected = score(nn.Identity(), batches(logits, labels), task, CPU)
        assert mine[0] == others[0] == task.thresholds
        assert mine[1] == pytest.approx(expected, rel=1e-6, nan_ok=True)
        assert others[1] == pytest.approx(expected, rel=1e-6, nan_ok=True)
