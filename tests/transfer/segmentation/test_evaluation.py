from __future__ import annotations

import numpy as np
import pytest
import torch

from mixskd.errors import UserError
from mixskd.transfer.segmentation.evaluation import Segmentation, scores_of

CLASSES = ("a", "b", "c", "d", "e")


def in_numpy(found: np.ndarray, masks: np.ndarray, classes: int) -> dict[int, float]:
    """IoU in per cent of each class that is present, pixel by pixel."""
    inter, union = dict.fromkeys(range(classes), 0), dict.fromkeys(range(classes), 0)
    for f, m in zip(found.ravel().tolist(), masks.ravel().tolist(), strict=True):
        if m == 255:
            continue
        union[m] += 1
        if f == m:
            inter[m] += 1
        else:
            union[f] += 1
    return {k: 100 * inter[k] / union[k] for k in range(classes) if union[k]}


def test_miou_matches_a_loop_over_all_pixels() -> None:
    rng = np.random.default_rng(0)
    task = Segmentation(CLASSES)
    metrics = task.metrics()
    found_all, masks_all = [], []
    for size in (7, 12, 5):  # images of different sizes: one matrix for all of them
        masks = rng.choice([0, 1, 3, 255], size=(1, size, 9), p=[0.5, 0.2, 0.2, 0.1])
        found = np.where(
            rng.random(masks.shape) < 0.6, np.where(masks == 255, 0, masks), rng.choice([0, 1, 4], masks.shape)
        )
        logits = torch.nn.functional.one_hot(torch.from_numpy(found), 5).permute(0, 3, 1, 2).float()
        metrics.update(task.predict(torch.nn.Identity(), logits), torch.from_numpy(masks))
        found_all.append(found.ravel()), masks_all.append(masks.ravel())
    found, masks = np.concatenate(found_all), np.concatenate(masks_all)
    expected = in_numpy(found, masks, 5)
    assert sorted(expected) == [0, 1, 3, 4]  # 4 is only found, which counts as 0; 2 is absent
    ours = task.details(metrics.compute())
    assert ours["miou"] == round(sum(expected.values()) / 4, 4)
    assert ours["per_class"] == {n: round(expected[k], 4) if k in expected else None for k, n in enumerate(CLASSES)}
    assert ours["absent"] == ["c"]
    assert task.scores(metrics.compute()) == {"miou": ours["miou"], "pixel_accuracy": ours["pixel_accuracy"]}
    counted = masks != 255
    assert ours["pixel_accuracy"] == round(100 * (found == masks)[counted].mean(), 4)


def test_released_mean_counts_absent_classes_as_zero() -> None:
    confusion = torch.tensor([[8, 0, 0], [0, 6, 2], [0, 0, 0]])
    scores = scores_of(confusion, ("a", "b", "c"), released=4)
    assert scores["per_class"] == {"a": 100.0, "b": 75.0, "c": 0.0}
    assert scores["miou"] == round(175 / 3, 4)
    assert scores["miou_released"] == 43.75


def test_ignored_pixels_only_give_no_score() -> None:
    scores = scores_of(torch.zeros(2, 2), ("a", "b"))
    assert scores["miou"] is None
    assert scores["pixel_accuracy"] is None
    assert scores["absent"] == ["a", "b"]
    with pytest.raises(UserError, match="every pixel of the images is ignored"):
        Segmentation(("a", "b")).scores({"confusion": torch.zeros(2, 2)})
