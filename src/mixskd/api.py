"""The Python entry points that mirror the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mixskd import recipes
from mixskd.config import Experiment, MethodChoice, default_out, from_dict, merge, nest, plain


def benchmark(
    recipe: str | None = None,
    *,
    data: str | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    variants: str | None = None,
    rounds: int = 10,
    **settings: Any,
) -> dict[str, Any]:
    """Time the training step on this machine, each optimisation on and off; the report of ``mixskd benchmark --out``.

    Arguments as for :func:`train`; ``data="synthetic"`` needs none. Call it under ``if __name__ == "__main__"``, since
    each of the ``variants`` (comma-separated; all usual ones by default) starts processes of its own. Raises UserError
    for anything that cannot work.
    """
    from mixskd.benchmarking import benchmark as run

    return run(
        build_experiment(_settings(recipe, data, backbone, method, None, settings)), variants=variants, rounds=rounds
    )


def train(
    recipe: str | None = None,
    *,
    data: str | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    out: str | None = None,
    resume: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train a classifier and return its summary; ``summary["out"]`` is the run's folder.

    ``data`` is a source, or settings of the group (``{"source": "photos", "image_size": 128}``); ``method`` likewise.
    ``settings`` are any others, by group (``run={"epochs": 3}``). They lie over those of ``recipe`` (the defaults of an
    Experiment if it is None). Raises UserError for anything that cannot work.
    """
    from mixskd.training import train as run

    values = _settings(recipe, data, backbone, method, out, settings)
    return run(build_experiment(values, resume=resume), resume=resume)


def _settings(
    recipe: str | None,
    data: str | Mapping[str, Any] | None,
    backbone: str | None,
    method: str | Mapping[str, Any] | None,
    out: str | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    groups = {"data": data, "backbone": backbone, "method": method, "out": out}
    given = {**settings, **{key: value for key, value in groups.items() if value is not None}}
    return merge(recipes.load(recipe) if recipe else {}, nest(given))


def build_experiment(values: Mapping[str, Any], *, resume: bool = False) -> Experiment:
    """The experiment that nested (or dotted) ``values`` describe, with every hyper-parameter of its method spelt out.

    Without ``out`` it gets a folder under ``runs/``. Raises UserError for an unknown key, name or value.
    """
    from mixskd.methods import make_config, method_class

    experiment = from_dict(nest(values))
    name = experiment.method.name
    options = plain(dataclasses.asdict(make_config(method_class(name).Config, experiment.method.options)))
    experiment = dataclasses.replace(experiment, method=MethodChoice(name, options))
    if "out" not in values:
        experiment = dataclasses.replace(experiment, out=default_out(experiment, resume=resume))
    return experiment
