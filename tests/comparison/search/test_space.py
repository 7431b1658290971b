"""The space of a search: its defaults, its draws, and what is refused before anything is trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mixskd.comparison.search.space import USUAL, Choice, Interval, space_from
from mixskd.config import Experiment, recipes
from mixskd.config.build import build_experiment
from mixskd.errors import UserError

optuna = pytest.importorskip("optuna")


def base(recipe: str = "digits", **settings: Any) -> Experiment:
    return build_experiment({**recipes.load(recipe), "out": "", **settings})


def drawn(space: Any, **parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = space.draw(optuna.trial.FixedTrial(parameters))
    return found


def test_usual_space_holds_the_recipe_and_narrow_ranges_around_it() -> None:
    space = space_from(base(), {})
    assert [arm.label for arm in space.arms] == ["mixskd", *(name for name in USUAL if name != "mixskd")]
    assert space.settings == {
        "optim.lr": Interval(0.01, pytest.approx(0.3), log=True),
        "optim.weight_decay": Interval(5e-5, 2e-3, log=True),
        "data.augment": Choice(("none", "trivialaugment")),
    }
    assert space.base_parameters() == {
        "method": "mixskd", "optim.lr": 0.1, "optim.weight_decay": 5e-4, "data.augment": "none",
    }  # fmt: skip


def test_images_of_many_channels_are_not_given_policies() -> None:
    many = dataclasses.replace(base(), data=dataclasses.replace(base().data, channels=6))
    assert "data.augment" not in space_from(many, {}).settings


def test_layer_decay_and_freezing_are_searched_only_with_weights() -> None:
    space = space_from(base("finetune"), {}, methods="baseline")
    assert {"optim.layer_decay", "optim.freeze"} <= set(space.settings)
    assert "optim.freeze" not in space_from(base(), {}).settings


def test_options_of_a_method_are_drawn_for_that_method_alone() -> None:
    space = space_from(base(), {"mixskd.alpha": {"low": 0.1, "high": 1.0}}, methods=["baseline", "mixskd[mix=cutmix]"])
    assert drawn(space, method="baseline") == {"method": "baseline"}
    settings = drawn(space, **{"method": "mixskd[mix=cutmix]", "mixskd.alpha": 0.7})
    options = space.experiment(settings).method.options
    assert (options["mix"], options["alpha"]) == ("cutmix", 0.7)


def test_recipe_options_stay_with_the_recipes_own_method() -> None:
    values = recipes.load("small_images")
    experiment = build_experiment({**values, "method": {**values["method"], "alpha": 0.3}, "out": ""})
    space = space_from(experiment, {}, methods="mixskd,ols")
    assert space.experiment(drawn(space, **{
        "method": "ols", "optim.lr": 0.1, "optim.weight_decay": 5e-4, "data.augment": "none",
    })) == experiment  # fmt: skip


def test_backbones_are_drawn_if_there_are_several() -> None:
    space = space_from(base(), {"optim.lr": [0.1]}, methods="baseline", backbones="wrn_10_1,wrn_16_2")
    settings = drawn(space, **{"method": "baseline", "backbone": "wrn_16_2", "optim.lr": 0.1})
    assert space.experiment(settings).backbone == "wrn_16_2"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim.lrr": [0.1]}, "unknown setting 'optim.lrr'; did you mean 'optim.lr'"),
        ({"optim.lr": {"low": 0.1, "high": 0.1}}, "an empty range of optim.lr: from 0.1 to 0.1"),
        ({"optim.lr": {"low": 0.0, "high": 0.1, "log": True}}, "must begin above 0"),
        ({"optim.lr": {"low": "1e-4", "high": 0.1}}, "write numbers"),
        ({"optim.lr": {"low": 0.1}}, "write {low: A, high: B}"),
        ({"optim.lr": []}, "no value for optim.lr"),
        ({"optim.lr": [0.1, 0.1]}, "a value of optim.lr twice"),
        ({"optim.lr": [0.1, -1.0]}, "the space has optim.lr -1.0 for .*: optim.lr must be above 0"),
        ({"optim.betas": [[0.9, 0.99]]}, "lists or mappings"),
        ({"run": {"epochs": [3]}}, "run.epochs, which is not searched"),
        ({"mixskd.alphas": [0.1]}, "mixskd.alphas 0.1 for mixskd: unknown key method.alphas"),
        ({"methods": ["mixup"], "mixskd.alpha": [0.1]}, "mixskd is not one of its methods"),
        ({"methods": ["mixupp"]}, "unknown method 'mixupp'; did you mean 'mixup'"),
    ],
)
def test_bad_space_is_refused_in_a_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        space_from(base(), space)
    assert len(str(caught.value).splitlines()) == 1
