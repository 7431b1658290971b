"""The samplers against their definitions, by counting."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.runtime.distributed import World

LABELS = np.array([0, 1, 2, 1, 0, 2, 1, 2, 0, 2, 2, 3])  # 3, 3, 5 and 1 images


def drawn(needs: DataNeeds, epochs: int) -> dict[int, list[tuple[int, ...]]]:
    """The partners of each anchor over ``epochs``."""
    plan = BatchPlan(LABELS, 4, 0, needs, World())
    partners: dict[int, list[tuple[int, ...]]] = {anchor: [] for anchor in range(len(LABELS))}
    for epoch in range(epochs):
        anchors, others = plan.epoch(epoch)
        for anchor, row in zip(anchors.flatten(), others.reshape(-1, needs.partners), strict=True):
            partners[int(anchor)].append(tuple(row.tolist()))
    return partners


def uniform(counts: Counter, outcomes: list) -> bool:
    assert set(counts) == set(outcomes)
    return len(outcomes) == 1 or stats.chisquare([counts[o] for o in outcomes]).pvalue > 1e-4


def test_every_image_is_an_anchor_once_an_epoch_in_a_new_order() -> None:
    plan = BatchPlan(LABELS, 4, 0, DataNeeds(), World())
    first, second = (plan.epoch(epoch)[0] for epoch in (0, 1))
    assert sorted(first.flatten()) == sorted(second.flatten()) == list(range(12))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, plan.epoch(0)[0])


def test_cskd_partners_include_the_image_itself() -> None:
    for anchor, rows in drawn(DataNeeds(partners=1), 2000).items():
        members = np.flatnonzero(LABELS[anchor] == LABELS).tolist()
        assert uniform(Counter(row[0] for row in rows), members), anchor


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_bake_draws_distinct_others(wanted: int) -> None:
    """Where the class is large enough: every set of others alike. Else each draw alike, and independent."""
    for anchor, rows in drawn(DataNeeds(partners=wanted, distinct_partners=True), 2000).items():
        others = [i for i in np.flatnonzero(LABELS[anchor] == LABELS).tolist() if i != anchor]
        if len(others) >= wanted:
            assert uniform(Counter(tuple(sorted(row)) for row in rows), list(combinations(others, wanted))), anchor
        elif others:
            assert all(uniform(Counter(row[j] for row in rows), others) for j in range(wanted)), anchor
            assert any(len(set(row)) > 1 for row in rows)
            assert any(len(set(row)) == 1 for row in rows)
        else:  # the only image of its class
            assert set(rows) == {(anchor,) * wanted}
