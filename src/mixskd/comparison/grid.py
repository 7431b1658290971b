"""A grid of runs: arms x backbones x data policies x seeds. It imports no torch."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from mixskd.comparison.transfer_runs import SETTING_KEYS, Transfer, settings_in, transfer_from
from mixskd.config import Experiment, convert, grids, merge
from mixskd.errors import UserError, unknown
from mixskd.evaluation.suites import SUITES

GRID_KEYS = (
    "recipe", "methods", "backbones", "augments", "seeds", "equal_updates", "equal_cost", "images_per_update",
    "paper_table", "suites", "transfer", "folds",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One line of the table: its ``label``, and its settings by dotted name, ``method.name`` included."""

    label: str
    settings: dict[str, Any]


def options_by_label(arms: Iterable[Arm]) -> dict[str, dict[str, Any]]:
    """``arms`` as the mapping ``methods`` of a grid's file."""
    return {arm.label: {key.removeprefix("method."): value for key, value in arm.settings.items()} for arm in arms}


@dataclass(frozen=True)
class Grid:
    """Every arm with every backbone, augmentation policy and seed.

    Args:
        arms: methods with their settings.
        backbones: by name.
        augments: values of ``data.augment``.
        seeds: values of ``run.seed``.
        settings: those of all runs, nested as in a configuration file.
        equal_updates: label of an arm; all others get as many updates by more or fewer epochs. Warm-up and milestones
            are scaled with them.
        equal_cost: label of an arm; all others get as many counted operations in training, in the same way.
        images_per_update: images forwarded in an update, with views, partners and mixes. The batch size of an arm is
            this number divided by the images that it forwards per original: 64 for MixSKD with 128, as in the paper.
        paper_table: the table of the paper whose values are shown beside ours, even for other data and backbones.
        suites: evaluation suites; the headline of each is a column.
        folds: parts of a cross-validation; each seed has one run for each of them. None for no cross-validation.
        transfer: the detector or segmentation network in which the backbone of every run is used, if any.
    """

    arms: tuple[Arm, ...]
    backbones: tuple[str, ...]
    augments: tuple[str, ...] = ("none",)
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: dict[str, Any] = field(default_factory=dict)
    equal_updates: str | None = None
    equal_cost: str | None = None
    images_per_update: int | None = None
    paper_table: str | None = None
    suites: tuple[str, ...] = ()
    transfer: Transfer | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        check_columns(self.suites)
        if self.folds is not None and self.folds < 2:
            raise UserError(f"--folds must be 2 or more, not {self.folds}")
        if self.folds is not None and self.transfer is not None:
            raise UserError("--folds is for classifiers; leave it out, or leave --transfer out")
        labels = [arm.label for arm in self.arms]
        axes = {"methods": labels, "backbones": self.backbones, "augments": self.augments, "seeds": self.seeds}
        for name, values in axes.items():
            if not values:
                raise UserError(f"the grid has no {name}")
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise UserError(f"the grid names {twice[0]!r} twice among its {name}; label one: LABEL=METHOD")
        for flag, label in (("--equal-updates", self.equal_updates), ("--equal-cost", self.equal_cost)):
            if label is not None and label not in labels:
                raise UserError(f"{flag} {label!r} is not one of the methods: {', '.join(labels)}")
        if self.equal_updates is not None and self.equal_cost is not None:
            raise UserError("--equal-updates and --equal-cost set the epochs both; give one of them")
        if self.images_per_update is not None and self.images_per_update < 1:
            raise UserError(f"--images-per-update must be 1 or more, not {self.images_per_update}")


def check_columns(suites: Iterable[str]) -> None:
    """Raises UserError for a suite that is unknown, or that needs more than one run and its data."""
    for name in suites:
        if name not in SUITES:
            raise unknown("suite", name, SUITES)
        if name in ("confidence", "ood"):
            needed = "two runs" if name == "confidence" else "another data set"
            raise UserError(f"the suite {name} needs {needed}, so it has no column; use mixskd evaluate --suite {name}")


def default_values(over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The grid that ``mixskd compare`` runs with no argument, with the nested settings ``over`` applied to it.

    Its small share of the digits is not applied to other data.
    """
    values: dict[str, Any] = yaml.safe_load((files(__package__) / "default.yaml").read_text(encoding="utf-8"))
    over = over or {}
    if over.get("data", {}).get("source", values["data"]["source"]) != values["data"]["source"]:
        values["data"] = {}
    return merge(values, over)


def combined(
    settings: Mapping[str, Any], grid: str | None, axes: Mapping[str, Any], *, whole: bool = False
) -> dict[str, Any]:
    """The values of a grid, for :func:`grid_from`: ``axes`` over ``settings`` over those of the named ``grid``.

    Without a recipe, the default comparison is under them, unless ``settings`` describe a ``whole`` grid, as a file's.
    """
    named = grids.load(grid) if grid is not None else {}
    if isinstance(given := settings.get("transfer"), Mapping):  # it refines that of the named grid
        named["transfer"] = merge(named.get("transfer", {}), given)
        settings = {**settings, "transfer": named["transfer"]}
    if whole or "recipe" in named or "recipe" in axes:
        return {**named, **settings, **axes}
    return {**default_values(settings), **named, **axes}


def grid_from(values: Mapping[str, Any]) -> Grid:
    """The grid that ``values`` describe: ``GRID_KEYS``, and settings as in a configuration file.

    ``methods`` is a list of arms as :func:`parse_arm` reads them, or a mapping from labels to options. Raises UserError
    for an unknown key or an invalid value.
    """
    values = {key: value for key, value in values.items() if key != "out"}  # of the file of a run
    settings = settings_in(values, GRID_KEYS, SETTING_KEYS, ("backbone", "weights"))
    default = Experiment()
    own = {"name": default.method.name, **settings.pop("method", {})}
    methods = values.get("methods") or {own["name"]: own}
    backbone = settings.pop("backbone", default.backbone)
    augment = settings.get("data", {}).get("augment", default.data.augment)
    images = values.get("images_per_update")
    arms = tuple(_arms(methods, own))
    return Grid(
        arms=arms,
        backbones=words(values.get("backbones") or backbone, "backbones"),
        augments=words(values.get("augments") or augment, "augments"),
        seeds=convert(values.get("seeds", "0,1,2"), tuple[int, ...], "seeds"),
        settings=settings,
        equal_updates=values.get("equal_updates"),
        equal_cost=_reference(values.get("equal_cost"), arms),
        images_per_update=None if images is None else convert(images, int, "images_per_update"),
        paper_table=values.get("paper_table"),
        suites=words(values.get("suites") or (), "suites"),
        transfer=None if values.get("transfer") is None else transfer_from(values["transfer"]),
        folds=None if values.get("folds") is None else convert(values["folds"], int, "folds"),
    )


def _reference(value: Any, arms: Sequence[Arm]) -> str | None:
    """The label that ``equal_cost`` names; True or no name is the arm ``baseline``, or else the first one."""
    if value is None or value is False:
        return None
    if value is True or value == "":
        labels = [arm.label for arm in arms]
        return "baseline" if "baseline" in labels or not labels else labels[0]
    return str(value)


def _arms(methods: Any, base: Mapping[str, Any]) -> Iterable[Arm]:
    if isinstance(methods, str):
        methods = split_outside_brackets(methods)
    if isinstance(methods, Mapping):
        arms = [_arm(str(label), {} if options is None else options) for label, options in methods.items()]
    elif isinstance(methods, list | tuple):
        arms = [parse_arm(text) for text in methods]
    else:
        raise UserError(f"methods must be a list of names, or hold names with options, not {methods!r}")
    for arm in arms:  # the recipe's options belong to its own method
        under = base if arm.settings["method.name"] == base.get("name") else {}
        yield Arm(arm.label, {**{f"method.{key}": value for key, value in under.items()}, **arm.settings})


def parse_arm(text: Any) -> Arm:
    """``METHOD``, ``METHOD[key=value,...]`` or ``LABEL=METHOD[...]``; a key without a dot is an option of the method.

    Any other setting has its dotted name (``mixup[alpha=0.2,run.batch_size=128]``), and ``weights`` has that name.
    """
    match = re.fullmatch(r"(?:([^=\[\]]+)=)?\s*(\w+)\s*(?:\[(.*)\])?", str(text).strip())
    if not match:
        raise UserError(f"cannot read the method {str(text)!r}; write NAME, NAME[option=value,...] or LABEL=NAME[...]")
    label, name, inside = match.groups()
    options: dict[str, Any] = {"name": name}
    for part in split_outside_brackets(inside or ""):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"cannot read {part!r} in the method {str(text)!r}; write option=value")
        options[key.strip()] = value.strip()
    return _arm(label.strip() if label else str(text).strip(), options)


def _arm(label: str, options: Any) -> Arm:
    if isinstance(options, str):
        options = parse_arm(options).settings
    if not isinstance(options, Mapping):
        raise UserError(f"the method {label!r} of the grid must hold options, not {options!r}")
    named = {str(key): value for key, value in options.items()}
    if "method.name" not in named:
        named = {"name": label, **named}
    return Arm(
        label, {key if "." in key or key == "weights" else f"method.{key}": value for key, value in named.items()}
    )


def split_outside_brackets(text: str) -> list[str]:
    """``text`` split at the commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def words(value: Any, name: str) -> tuple[str, ...]:
    """Names from a list or from text with commas. Raises UserError for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        raise UserError(f"{name} must be a list of names, not {value!r}")
    return tuple(str(part).strip() for part in value if str(part).strip())
