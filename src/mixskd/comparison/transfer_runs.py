"""Transfer runs: the backbone of every run of a grid is used in a detector or a segmentation network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixskd.config import Experiment, convert, merge, recipes
from mixskd.config.build import build_experiment, make_config
from mixskd.config.registry import method_class
from mixskd.config.task_kinds import KINDS, kind_of
from mixskd.errors import UserError, nearest

OWN_KEYS = ("recipe", "seeds", "scratch")
SETTING_KEYS = ("method", "data", "optim", "run")
SCRATCH = "scratch"


@dataclass(frozen=True)
class Transfer:
    """The detector or segmentation network in which the backbones of a grid are used.

    Args:
        settings: those of every run that starts from a backbone of the grid, nested as in a configuration file.
        seeds: seeds of these runs, each with every backbone, since the paper has one backbone per method. If empty,
            each run has the seed of its backbone.
        scratch: whether the network is also trained from random weights.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    scratch: bool = False

    def experiment(self, backbone: str, seed: int, weights: str | None) -> Experiment:
        """The experiment of one transfer run. Raises UserError for an unknown setting."""
        own = {"backbone": backbone, "weights": weights, "run.seed": seed, "out": ""}
        return build_experiment(merge(self.settings, own))

    def to_dict(self) -> dict[str, Any]:
        """The values that :func:`transfer_from` reads."""
        own: dict[str, Any] = {"seeds": list(self.seeds)} if self.seeds else {}
        return {**own, **({"scratch": True} if self.scratch else {}), **self.settings}


def settings_in(
    values: Mapping[str, Any], own: Sequence[str], groups: Sequence[str], others: Sequence[str] = (), where: str = ""
) -> dict[str, Any]:
    """The settings among ``values``, over those of their ``recipe``; the keys ``own`` are no settings.

    ``where`` is written before a key in messages. Raises UserError for a key that is neither in ``own``, ``groups`` nor
    ``others``, and for a group without keys.
    """
    allowed = [*own, *groups, *others]
    for key in values:
        if str(key).split(".")[0] not in allowed:
            raise UserError(f"unknown key {f'{where}{key}'!r} in the grid{nearest(str(key), allowed)}")
    given = {key: value for key, value in values.items() if key not in own}
    settings = merge(recipes.load(str(values["recipe"])) if values.get("recipe") else {}, given)
    if odd := [key for key in groups if not isinstance(settings.get(key, {}), Mapping)]:
        raise UserError(f"{where}{odd[0]} must hold keys, not {settings[odd[0]]!r}")
    return settings


def transfer_from(values: Any) -> Transfer:
    """The part ``transfer`` of a grid: settings as in a configuration file, ``recipe``, ``seeds`` and ``scratch``.

    Raises UserError for an unknown key, an invalid value, or no detector or segmentation network.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"transfer must hold settings such as recipe and data, not {values!r}")
    settings = settings_in(values, OWN_KEYS, SETTING_KEYS, where="transfer.")
    settings.pop("backbone", None)
    network = settings.get("method", {}).get("name")
    if kind_of(str(network)) is None:
        names = [name for kind in KINDS for name in kind.networks]
        advice = f"give transfer a recipe ({', '.join(kind.recipe for kind in KINDS if kind.recipe)}) or a method.name"
        raise UserError(f"transfer.method.name must be one of {', '.join(names)}, not {network!r}; {advice}")
    seeds = values.get("seeds")
    return Transfer(
        settings,
        () if seeds is None else convert(seeds, tuple[int, ...], "transfer.seeds"),
        convert(values.get("scratch", False), bool, "transfer.scratch"),
    )


def examine_data(experiments: Iterable[Experiment]) -> None:
    """Read the annotations of the detectors and segmentation networks among ``experiments``, before hours of training.

    Each data set is read once. Raises UserError for settings, files or annotations that cannot be used.
    """
    examined = set()
    for experiment in experiments:
        key = str((experiment.data, experiment.method))
        if kind_of(experiment.method.name) is None or key in examined:
            continue
        # Imported here: torchvision's detectors take a second, which other grids need not wait for.
        from mixskd.transfer.pipeline import pipeline_of
        from mixskd.transfer.setup import check_supported

        examined.add(key)
        check_supported(experiment)
        config = make_config(method_class(experiment.method.name).Config, experiment.method.options)
        pipeline = pipeline_of(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        pipeline.load(experiment.data.source, experiment.data)


def label_of(origin: str, experiment: Experiment) -> str:
    """``ORIGIN-NETWORK-DATA``: the origin of the backbone, the network and its data."""
    return "-".join((origin, experiment.method.name, Path(experiment.data.source).stem))
