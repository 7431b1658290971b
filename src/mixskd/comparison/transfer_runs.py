"""The second half of a grid: the backbone of every run is used in a detector or a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixskd.config import Experiment, convert, merge, nest, recipes
from mixskd.config.build import build_experiment
from mixskd.config.task_kinds import KINDS, kind_of
from mixskd.errors import UserError, nearest

OWN_KEYS = ("recipe", "seeds", "scratch")
SETTING_KEYS = ("method", "data", "optim", "run")
SCRATCH = "scratch"


@dataclass(frozen=True)
class Transfer:
    """What the backbones of a grid are carried into.

    Args:
        settings: those of every run that starts from a backbone of the grid, nested as in a configuration file.
        seeds: of these runs, each with every backbone, as the paper has one backbone a method; if empty, each backbone
            is carried on with the seed that it was trained with.
        scratch: train the network from random weights as well.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    scratch: bool = False

    def experiment(self, backbone: str, seed: int, weights: str | None) -> Experiment:
        """One run of it. Raises UserError for a setting that does not exist."""
        own = {"backbone": backbone, "weights": weights, "run.seed": seed, "out": ""}
        return build_experiment(merge(self.settings, nest(own)))

    def to_dict(self) -> dict[str, Any]:
        """As :func:`transfer_from` reads it."""
        own: dict[str, Any] = {"seeds": list(self.seeds)} if self.seeds else {}
        return {**own, **({"scratch": True} if self.scratch else {}), **self.settings}


def transfer_from(values: Any) -> Transfer:
    """The part ``transfer`` of a grid: settings as in a configuration file, ``recipe``, ``seeds`` and ``scratch``.

    Raises UserError for anything that does not belong, and without a network that finds boxes or masks.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"transfer must hold settings such as recipe and data, not {values!r}")
    allowed = [*OWN_KEYS, *SETTING_KEYS]
    for key in values:
        if str(key).split(".")[0] not in allowed:
            raise UserError(f"unknown key {f'transfer.{key}'!r} in the grid{nearest(str(key), allowed)}")
    given = nest({key: value for key, value in values.items() if key not in OWN_KEYS})
    settings = merge(recipes.load(str(values["recipe"])) if values.get("recipe") else {}, given)
    settings.pop("backbone", None)
    if odd := [key for key in SETTING_KEYS if not isinstance(settings.get(key, {}), Mapping)]:
        raise UserError(f"transfer.{odd[0]} must hold keys, not {settings[odd[0]]!r}")
    network = settings.get("method", {}).get("name")
    if kind_of(str(network)) is None:
        names = [name for kind in KINDS for name in kind.networks]
        advice = f"give transfer a recipe ({', '.join(kind.recipe for kind in KINDS)}) or a method.name"
        raise UserError(f"transfer.method.name must be one of {', '.join(names)}, not {network!r}; {advice}")
    seeds = values.get("seeds")
    return Transfer(
        settings,
        () if seeds is None else convert(seeds, tuple[int, ...], "transfer.seeds"),
        convert(values.get("scratch", False), bool, "transfer.scratch"),
    )


def label_of(origin: str, experiment: Experiment) -> str:
    """``ORIGIN-NETWORK-DATA``: what the network started from, and what it is trained for."""
    return "-".join((origin, experiment.method.name, Path(experiment.data.source).stem))
