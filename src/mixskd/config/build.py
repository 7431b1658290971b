"""From settings to a whole experiment, with every hyper-parameter of its method spelt out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixskd.config.conversion import build
from mixskd.config.experiment import Experiment, MethodChoice, from_dict
from mixskd.config.merging import merge, nest
from mixskd.config.registry import method_class
from mixskd.config.yaml_file import read_yaml
from mixskd.errors import UserError, unknown


def build_experiment(values: Mapping[str, Any], *, resume: bool = False) -> Experiment:
    """The experiment that nested (or dotted) ``values`` describe, with every hyper-parameter of its method spelt out.

    Without ``out`` it gets a folder under ``runs/``. Raises UserError for an unknown key, name or value.
    """
    values = nest(values)
    if resume and values.get("out") and (config := Path(values["out"]) / "config.yaml").is_file():
        values = merge(read_yaml(config), values)
    experiment = with_all_options(from_dict(values))
    if "out" not in values:
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        experiment = dataclasses.replace(experiment, out=default_out(experiment, resume=resume, restarted=restarted))
    return experiment


def with_all_options(experiment: Experiment) -> Experiment:
    """``experiment`` with every option of its method; those that it lacks, as an older run may, have their defaults.

    Raises UserError for an unknown method or option, or a value that cannot work.
    """
    name = experiment.method.name
    options = dataclasses.asdict(make_config(method_class(name).Config, experiment.method.options))
    return dataclasses.replace(experiment, method=MethodChoice(name, options))


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
    return build(config_type, values, "method.")


def default_out(experiment: Experiment, *, resume: bool, restarted: bool = False) -> str:
    """``runs/DATA-BACKBONE-METHOD-seedN``, with a number if there is already a run that is not to be resumed.

    Processes that were ``restarted`` after a failure take the newest of these folders, if its run has not ended.
    """
    data = Path(experiment.data.source).stem or "data"
    backbone = experiment.backbone.replace("/", "_")
    base = f"runs/{data}-{backbone}-{experiment.method.name}-seed{experiment.run.seed}"
    out, newest, number = base, base, 1
    while not resume and Path(out).exists():
        newest = out
        number += 1
        out = f"{base}-{number}"
    if restarted and number > 1 and not (Path(newest) / "summary.json").exists():
        return newest
    return out
