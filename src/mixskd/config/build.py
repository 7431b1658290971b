"""Build a whole experiment from settings, with every hyper-parameter of its method."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixskd.config.conversion import convert
from mixskd.config.experiment import Experiment
from mixskd.config.merging import merge
from mixskd.config.optim import OPTIMIZERS
from mixskd.config.registry import method_class
from mixskd.config.yaml_file import read_yaml
from mixskd.errors import UserError, unknown

# Settings that earlier versions had and wrote down: they are not read, since they changed no result.
REMOVED = {"run": ("branch_streams",)}


def build_experiment(values: Mapping[str, Any], *, resume: bool = False, keep_options: bool = False) -> Experiment:
    """The experiment that nested (or dotted) ``values`` describe, with every hyper-parameter of its method.

    Settings of the optimizer that are not given have its usual values. Without ``out`` it gets a folder under
    ``runs/``. With ``resume``, ``values`` override the configuration that ``out`` holds. ``keep_options`` accepts a
    method that is no longer installed, and keeps its options as they are. Raises UserError for an unknown key, name or
    value, and for settings that exclude each other.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"an experiment must hold keys such as backbone, method, data, not {values!r}")
    values = merge(values)
    if resume and values.get("out") and (config := Path(str(values["out"])) / "config.yaml").is_file():
        values = merge(read_yaml(config), values)
    for group, removed in REMOVED.items():
        if isinstance(values.get(group), Mapping):
            values[group] = {key: value for key, value in values[group].items() if key not in removed}
    if isinstance(optim := values.get("optim"), Mapping):
        usual = OPTIMIZERS.get(str(optim.get("name", "sgd")), OPTIMIZERS["adamw"])
        given = {str(key).replace("-", "_") for key in optim}
        values["optim"] = {**{key: value for key, value in usual.items() if key not in given}, **optim}
    if isinstance(method := values.get("method", {}), Mapping):
        convert({**values, "method": {}}, Experiment)  # a mistake is found before the method imports torch
        values["method"] = chosen_method(method, keep_options)
    experiment: Experiment = convert(values, Experiment)
    optim = experiment.optim
    if optim.nesterov and optim.momentum == 0:
        raise UserError("optim.nesterov needs a momentum above 0; set --optim.nesterov false")
    if experiment.weights is None and (optim.head_start == "probe" or optim.norms == "frozen"):
        key = "head_start probe" if optim.head_start == "probe" else "norms frozen"
        raise UserError(f"optim.{key} needs weights to start from; name some with --weights")
    if "out" not in values:
        source, backbone = Path(experiment.data.source).stem or "data", experiment.backbone.replace("/", "_")
        base = f"runs/{source}-{backbone}-{experiment.method.name}-seed{experiment.run.seed}"
        experiment = dataclasses.replace(experiment, out=default_out(base, resume=resume))
    return experiment


def check_settings(values: Mapping[str, Any]) -> None:
    """Raises UserError for a mistake in ``values``, nested or dotted, but for the method, whose options need torch."""
    convert({**merge(values), "method": {}}, Experiment)


def read_experiment(config: Path) -> Experiment:
    """The experiment of a ``config.yaml``, also of a method that is no longer installed.

    Raises UserError for a file that describes none.
    """
    return build_experiment(read_yaml(config), keep_options=True)


def chosen_method(values: Mapping[Any, Any], keep_options: bool) -> dict[str, Any]:
    """The ``values`` of the group ``method`` as a name and all options.

    Raises UserError for an unknown method or option, unless ``keep_options``, and for a value that cannot work.
    """
    name = convert(values.get("name", "mixskd"), str, "method.name")
    options = {str(key): value for key, value in values.items() if key != "name"}
    try:
        options = dataclasses.asdict(make_config(method_class(name).Config, options))
    except UserError:
        if not keep_options:
            raise
    return {"name": name, "options": options}


# The methods with the option label_smoothing.
SMOOTHED = ("mixskd", "mixup", "regmixup", "cutmix", "mixup_cutmix", "ict")


def make_config(config_type: type, options: Mapping[str, Any]) -> Any:
    """``config_type`` from ``options``; the key ``preset`` names the defaults under them (``config_type.PRESETS``).

    Raises UserError for an unknown option or preset, or a value that the configuration refuses.
    """
    values = dict(options)
    if presets := getattr(config_type, "PRESETS", None):
        preset = values.get("preset", "paper")
        if preset not in presets:
            raise unknown("preset", preset, presets)
        values = {**presets[preset], **values}
    if "label_smoothing" in values and not any(
        field.name == "label_smoothing" for field in dataclasses.fields(config_type)
    ):
        raise UserError(
            f"this method has no label_smoothing; use it with {', '.join(SMOOTHED)}, "
            "or train with --method label_smoothing"
        )
    return convert(values, config_type, "method")


def default_out(base: str, *, resume: bool) -> str:
    """``base``, with a number if there is already a run that is not to be resumed.

    Processes that were restarted after a failure take the newest of these folders, if its run has not ended.
    """
    out, newest, number = base, base, 1
    while not resume and Path(out).exists():
        newest = out
        number += 1
        out = f"{base}-{number}"
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if restarted and number > 1 and not (Path(newest) / "summary.json").exists():
        return newest
    return out
