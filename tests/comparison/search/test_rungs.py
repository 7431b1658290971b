"""Rungs of counted operations, and the epochs that each method gets for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from mixskd.benchmarking.cost import count_cost
from mixskd.comparison.costs import Costs
from mixskd.comparison.search.rungs import rungs_for
from mixskd.comparison.search.space import space_from
from mixskd.comparison.search.tune import check_methods, with_val
from mixskd.config import Experiment
from mixskd.data import load_data
from mixskd.errors import UserError
from tests.comparison.search.test_space import base


@pytest.mark.parametrize(("epochs", "number"), [(1, 1), (5, 1), (6, 2), (17, 2), (18, 3), (200, 3)])
def test_first_rung_has_two_epochs_of_the_recipe_or_more(epochs: int, number: int) -> None:
    rungs = rungs_for(900.0, epochs)
    assert rungs == pytest.approx(tuple(900 / 3**back for back in reversed(range(number))))


def test_method_at_four_times_the_price_gets_a_quarter_of_the_epochs() -> None:
    costs = Costs(load_data(base().data))
    experiments = {
        name: base(backbone="wrn_16_2", method={"name": name}, run={"epochs": 40, "batch_size": 64}) for name in
        ("baseline", "mixskd")
    }  # fmt: skip
    prices = {
        name: count_cost(experiment, 10, costs.data.image_size).training_flops
        for name, experiment in experiments.items()
    }
    operations = costs.whole(experiments["mixskd"])
    fitted = {name: costs.fitted(experiment, operations) for name, experiment in experiments.items()}
    assert fitted["mixskd"].run.epochs == 40
    assert fitted["baseline"].run.epochs == int(40 * prices["mixskd"] / prices["baseline"])
    assert costs.whole(fitted["baseline"]) <= operations


@pytest.mark.parametrize("setting", [{"image_size": 64}, {"channels": 1}])
def test_each_size_and_number_of_channels_has_its_own_cost(setting: dict[str, int]) -> None:
    usual = base(backbone="wrn_10_1", method={"name": "baseline"})
    other = dataclasses.replace(usual, data=dataclasses.replace(usual.data, **setting))
    costs = Costs(load_data(usual.data))
    counted = count_cost(other, 10, other.data.image_size or costs.data.image_size).training_flops
    assert costs.epoch(other) / costs.epoch(usual) == pytest.approx(
        counted / count_cost(usual, 10, costs.data.image_size).training_flops
    )
    assert costs.epoch(other) != costs.epoch(usual)


def test_growing_images_cost_the_mean_of_their_epochs() -> None:
    def cost(epochs: int = 5, restarts: Sequence[int] = (), **data: Any) -> Any:
        plan: dict[str, Any] = {"run": {"epochs": epochs}, "optim": {"restarts": restarts}, "data": data}
        return count_cost(base(backbone="wrn_10_1", method={"name": "baseline"}, **plan), 10, 32)

    small, full = cost(scale_schedule=[16]), cost()
    mixed = cost(scale_schedule=[16, 32], eval_size=16)
    again = cost(scale_schedule=[16, 32], epochs=8, restarts=[5])
    assert again.training_flops == pytest.approx((3 * small.training_flops + 5 * full.training_flops) / 8)
    assert mixed.training_flops == pytest.approx((3 * small.training_flops + 2 * full.training_flops) / 5)
    assert (mixed.inference_flops, mixed.images) == (pytest.approx(full.inference_flops / 4, rel=0.01), full.images)


def test_schedule_is_scaled_to_the_rung() -> None:
    costs = Costs(load_data(base().data))
    experiment = base(optim={"warmup_epochs": 4, "milestones": [8, 12]}, run={"epochs": 16, "batch_size": 64})
    fitted = costs.fitted(experiment, costs.whole(experiment) / 4)
    assert (fitted.run.epochs, fitted.optim.warmup_epochs, fitted.optim.milestones) == (4, 1, (2, 3))
    shortest = costs.fitted(experiment, 1.0)
    assert (shortest.run.epochs, shortest.optim.milestones) == (1, (1, 1))  # the first epoch keeps its rate


def checked(experiment: Experiment, space: dict[str, Any], **options: Any) -> None:
    experiment, data = with_val(experiment, None)
    check_methods(space_from(experiment, space, **options), Costs(data))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"methods": "tfkd_self"}, "learns from a trained baseline; give it one"),
        ({"methods": "mixskd", "backbones": "nonet"}, "unknown backbone 'nonet'"),
        ({"methods": "mixskd", "data.augment": ["none", "cutouts"]}, "unknown augmentation policy 'cutouts'"),
    ],
)
def test_what_cannot_be_trained_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(base(), space)


def test_val_is_held_out_where_there_is_none_and_test_is_not_scored() -> None:
    experiment, data = with_val(base(), None)
    assert (experiment.data.val_holdout, experiment.run.score_test) == (0.2, False)
    assert list(data.splits) == ["train", "val", "test"]
    folded, data = with_val(base(), 3)
    assert (folded.data.folds, len(data.splits["val"])) == (3, pytest.approx(len(data.train) / 2, abs=10))
