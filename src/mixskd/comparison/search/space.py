"""The space of a search: methods, backbones, and the values that each setting may have. It imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixskd.comparison.grid import Arm, grid_from, options_by_label
from mixskd.config import Experiment, flatten, known_keys, merge, to_dict
from mixskd.config.build import build_experiment
from mixskd.config.registry import METHODS
from mixskd.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

# The methods of the default space, one of each kind that the comparisons of docs/choose.md found good somewhere.
USUAL = ("baseline", "label_smoothing", "mixup", "cutmix", "cskd", "mixskd", "mixskd[mix=cutmix]")
# Settings that the search itself decides, or that would change what is measured.
FIXED = (
    "out", "run.epochs", "run.seed", "run.score_test", "data.source", "data.root", "data.holdout", "data.val_holdout",
    "data.folds", "data.fold", "data.train_on_val", "data.split_seed", "data.group", "data.per_class", "backbone",
    "method.name", "method.options",
)  # fmt: skip
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Interval:
    """All numbers from ``low`` to ``high``; ``log`` draws them evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def draw(self, trial: BaseTrial, name: str) -> Value:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        return type(value) in (int, float) and self.low <= value <= self.high

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that are tried before the search."""
        return self.low, self.high

    def plain(self) -> Any:
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """One of ``values``."""

    values: tuple[Value, ...]

    def draw(self, trial: BaseTrial, name: str) -> Value:
        value: Value = trial.suggest_categorical(name, list(self.values))
        return value

    def holds(self, value: Any) -> bool:
        return value in self.values

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that are tried before the search."""
        return self.values

    def plain(self) -> Any:
        return list(self.values)


@dataclass(frozen=True)
class Space:
    """What a search may choose.

    Args:
        base: the experiment that the recipe describes; trial 1, and the settings that are not searched.
        arms: the methods, as those of a comparison.
        backbones: by name.
        settings: the values of each setting by its dotted name; ``METHOD.OPTION`` is one of that method alone.
    """

    base: Experiment
    arms: tuple[Arm, ...]
    backbones: tuple[str, ...]
    settings: Mapping[str, Interval | Choice]

    def draw(self, trial: BaseTrial) -> dict[str, Any]:
        """What ``trial`` proposes: the label of a ``method``, perhaps a ``backbone``, and settings by dotted name."""
        label = str(Choice(tuple(self.by_label)).draw(trial, "method"))
        drawn: dict[str, Any] = {"method": label}
        if len(self.backbones) > 1:
            drawn["backbone"] = Choice(self.backbones).draw(trial, "backbone")
        for key, values in self.of_method(self.by_label[label].settings["method.name"]).items():
            drawn[_own(key)] = values.draw(trial, key)
        return drawn

    @property
    def by_label(self) -> dict[str, Arm]:
        return {arm.label: arm for arm in self.arms}

    def of_method(self, method: str) -> dict[str, Interval | Choice]:
        """The searched settings of a trial with ``method``."""
        return {
            key: values
            for key, values in self.settings.items()
            if key.split(".")[0] not in METHODS or key.split(".")[0] == method
        }

    def experiment(self, settings: Mapping[str, Any]) -> Experiment:
        """The base with ``settings``, as :meth:`draw` gives them. Raises UserError for values that cannot be."""
        settings = dict(settings)
        if "method" in settings:
            settings = {**self.by_label[settings.pop("method")].settings, **settings}
        own = {} if "backbone" in settings or len(self.backbones) > 1 else {"backbone": self.backbones[0]}
        return build_experiment(merge(to_dict(self.base), {**own, **settings}))

    def base_parameters(self) -> dict[str, Any]:
        """The parameters of the base, as far as the space holds them; so Optuna learns from trial 1."""
        base = self.base
        flat = {**flatten(to_dict(base)), "backbone": base.backbone}
        alike = (
            a for a in self.arms if self.experiment({**a.settings, "backbone": base.backbone}).method == base.method
        )
        found: dict[str, Any] = {"method": arm.label} if (arm := next(alike, None)) else {}
        if len(self.backbones) > 1 and base.backbone in self.backbones:
            found["backbone"] = base.backbone
        for key, values in self.of_method(base.method.name).items():
            if values.holds(flat.get(_own(key))):
                found[key] = flat[_own(key)]
        return found

    def check(self) -> None:
        """Raises UserError for a value that an experiment refuses, naming the setting."""
        for arm in self.arms:
            for backbone in self.backbones:
                self.experiment({**arm.settings, "backbone": backbone})
            for key, values in self.of_method(arm.settings["method.name"]).items():
                for value in values.extremes:
                    try:
                        self.experiment({**arm.settings, _own(key): value})
                    except UserError as error:
                        raise UserError(f"the space has {key} {value} for {arm.label}: {error}") from None
        for key in self.settings:
            method = key.split(".")[0]
            if method in METHODS and method not in {arm.settings["method.name"] for arm in self.arms}:
                raise UserError(f"the space has {key}, but {method} is not one of its methods")

    def plain(self) -> dict[str, Any]:
        """The space as a file for ``--space``."""
        settings = {key: values.plain() for key, values in self.settings.items()}
        return {"methods": options_by_label(self.arms), "backbones": list(self.backbones), **settings}


def space_from(
    base: Experiment, given: Mapping[str, Any], methods: Any = None, backbones: Any = None, usual: Sequence[str] = USUAL
) -> Space:
    """The space that ``given`` describes: ``methods``, ``backbones``, and values by the dotted names of settings.

    What it does not name has the default of the recipe (:func:`usual_settings`, and the methods ``usual``).
    Raises UserError for a name or a range that cannot be.
    """
    given = _dotted(given)
    methods, backbones = methods or given.pop("methods", None), backbones or given.pop("backbones", None)
    given.pop("methods", None), given.pop("backbones", None)
    if methods is None:
        methods = [base.method.name, *(name for name in usual if name != base.method.name)]
    whole = {key: value for key, value in to_dict(base).items() if key != "out"}
    grid = grid_from({**whole, "methods": methods, "backbones": backbones or base.backbone})
    settings = {key: _values(key, value) for key, value in given.items()} if given else usual_settings(base)
    space = Space(base, grid.arms, grid.backbones, settings)
    space.check()
    return space


def usual_settings(base: Experiment) -> dict[str, Interval | Choice]:
    """The default values of the settings: narrow ranges around those of the recipe.

    The rate from a tenth to three times, the weight decay from a tenth to four times, and TrivialAugment or not. With
    weights to start from also the layer decay, and whether the first stage is trained.
    """
    optim = base.optim
    settings: dict[str, Interval | Choice] = {"optim.lr": Interval(optim.lr / 10, optim.lr * 3, log=True)}
    if optim.weight_decay > 0:
        settings["optim.weight_decay"] = Interval(optim.weight_decay / 10, optim.weight_decay * 4, log=True)
    if base.data.channels in (1, 3) and base.data.range is None:  # others have no image policies
        settings["data.augment"] = Choice(tuple(dict.fromkeys((base.data.augment, "trivialaugment"))))
    if base.weights is not None:
        settings["optim.layer_decay"] = Choice(tuple(dict.fromkeys((optim.layer_decay, 1.0, 0.75))))
        settings["optim.freeze"] = Choice(tuple(dict.fromkeys((optim.freeze, 0, 1))))
    return settings


def _dotted(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with the keys of its groups joined by dots; a mapping with ``low`` or ``high`` is a value."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        inner = isinstance(value, Mapping) and key != "methods" and not {"low", "high", "log"} & set(map(str, value))
        found |= {f"{key}.{k}": v for k, v in _dotted(value).items()} if inner else {str(key): value}
    return found


def _values(key: str, value: Any) -> Interval | Choice:
    own, method = _own(key), key.split(".")[0]
    allowed = [name for name in known_keys() if name not in FIXED]
    if key in FIXED:
        raise UserError(f"the space has {key}, which is not searched; give it as a setting of all trials, or leave it")
    if method not in METHODS and own not in allowed:
        raise UserError(f"the space has an unknown setting {key!r}{nearest(key, allowed)}")
    if isinstance(value, Mapping):
        return _interval(key, value)
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not values:
        raise UserError(f"the space has no value for {key}")
    if any(not isinstance(one, str | int | float | bool | None) for one in values):
        raise UserError(f"the space has {key} with lists or mappings; each value must be text or a number")
    if len(set(map(repr, values))) < len(values):
        raise UserError(f"the space has a value of {key} twice")
    return Choice(values)


def _interval(key: str, value: Mapping[str, Any]) -> Interval:
    if not {"low", "high"} <= set(value) or set(value) - {"low", "high", "log"}:
        raise UserError(f"the space has {key} as {dict(value)}; write {{low: A, high: B}}, and log: true if wanted")
    low, high, log = value["low"], value["high"], value.get("log", False)
    if any(type(end) not in (int, float) for end in (low, high)) or not isinstance(log, bool):
        raise UserError(f"the space has {key} from {low!r} to {high!r}; write numbers, such as 1.0e-4")
    if not low < high:
        raise UserError(f"the space has an empty range of {key}: from {low} to {high}")
    if log and low <= 0:
        raise UserError(f"the space has a logarithmic range of {key} from {low}; it must begin above 0")
    return Interval(low, high, log)


def _own(key: str) -> str:
    """The setting that ``key`` of a space names: ``METHOD.OPTION`` is ``method.OPTION``."""
    method, _, option = key.partition(".")
    return f"method.{option}" if method in METHODS else key
