"""One model file of several trained classifiers: the mean of their probabilities, or of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mixskd.artifacts.model_file import Classifier, load_model, save_model
from mixskd.backbones.averaged import average_backbone
from mixskd.backbones.staged import StagedBackbone
from mixskd.config.build import read_experiment
from mixskd.errors import UserError

LONGEST_NAME = 200  # of a backbone in a model file


def average(
    runs: Sequence[str | Path],
    out: str | Path = "average.safetensors",
    *,
    weights: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the average of the classifiers of ``runs`` as one model file; its path.

    It is the mean of their probabilities, which costs as much as all of them. With ``weights`` it is the mean of their
    weights (a model soup, Wortsman et al. 2022), which costs as much as one; the runs must have started from the same
    weights. What :func:`mixskd.calibrate` stored is not kept. Raises UserError for fewer than two runs, for other
    classes, images or networks, and for a file that exists without ``overwrite``.
    """
    target = Path(out)
    if target.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, not {target.name!r}")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; add --overwrite to replace it, or give another --out")
    if len(runs) < 2:
        raise UserError("an average needs two runs or more")
    models = [load_model(run) for run in runs]
    first = models[0]
    for run, model in zip(runs, models, strict=True):
        for what in ("classes", "preprocess", "task"):
            if getattr(model, what) != getattr(first, what):
                raise UserError(f"{run} and {runs[0]} differ in their {what}, so they have no average")
    made = _of_weights(runs, models) if weights else _of_probabilities(models)
    thresholds = [sum(each) / len(models) for each in zip(*(model.thresholds for model in models), strict=True)]
    save_model(
        made, target, backbone_name=made.name, classes=first.classes, image_size=first.image_size, mean=first.mean,
        std=first.std, resize=first.preprocess.resize, thresholds=thresholds,
    )  # fmt: skip
    return target


def _of_probabilities(models: Sequence[Classifier]) -> StagedBackbone:
    if models[0].task == "multilabel":
        raise UserError("only --weights averages classifiers of several labels an image")
    made = average_backbone(models)
    if len(made.name) > LONGEST_NAME:
        raise UserError("an average of so many different networks cannot be stored; take fewer")
    return made


def _of_weights(runs: Sequence[str | Path], models: Sequence[Classifier]) -> StagedBackbone:
    starts = set()
    for run, model in zip(runs, models, strict=True):
        if model.name != models[0].name:
            raise UserError(f"{run} has the network {model.name} and {runs[0]} {models[0].name}; leave --weights out")
        config = Path(run) / "config.yaml"
        if not config.is_file():
            raise UserError(f"{run} is not a run's folder, so it does not say from which weights it started")
        starts.add(read_experiment(config).weights)
    if len(starts) > 1 or None in starts:
        raise UserError("these runs did not start from the same trained weights, so the mean of their weights is no "
                        "classifier; leave --weights out")  # fmt: skip
    states = [model.export_state_dict() for model in models]
    models[0].load_export_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    return models[0]


def _mean(values: Sequence[Tensor]) -> Tensor:
    first = values[0]
    return torch.stack([x.double() for x in values]).mean(0).to(first.dtype) if first.is_floating_point() else first
