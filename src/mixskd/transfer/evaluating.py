"""The scores of a trained detector or segmentation network on a split of its data or of others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from mixskd.config import DataConfig, Experiment, MethodChoice, from_dict, read_yaml
from mixskd.data import worker_count
from mixskd.errors import UserError
from mixskd.runtime.precision import choose_device
from mixskd.tasks.scoring import evaluation_mode, on
from mixskd.transfer.annotated import AnnotatedBundle
from mixskd.transfer.data import annotated_data
from mixskd.transfer.detection.evaluation import Detection
from mixskd.transfer.network_file import About, load_network
from mixskd.transfer.segmentation.evaluation import Segmentation
from mixskd.transfer.setup import score_loader, task_of


@torch.inference_mode()
def evaluate(path: str | Path, data: str | None = None, *, split: str | None = None) -> dict[str, Any]:
    """The scores of the network at ``path`` with those of each class, on a split of ``data`` or of its run's data.

    ``split`` is ``test`` if not given, or ``val`` where there is no test. Raises UserError if the data have other
    classes, or no such split.
    """
    model, about = load_network(path)
    bundle = data_of(path, about, data)
    name = split or next(name for name in ("test", "val") if name in bundle.splits)
    if name not in bundle.splits:
        raise UserError(f"there is no split {name!r}; there are: {', '.join(bundle.splits)}")
    device = choose_device("auto")
    task = task_of(bundle, about.config)
    metrics = task.metrics().to(device)
    model.to(device)
    with evaluation_mode(model):
        for images, targets in score_loader(bundle, name, about.config, workers=worker_count(None)):
            metrics.update(task.predict(model, on(device, images)), on(device, targets))
    values = metrics.compute()
    scores: dict[str, Any] = {**task.scores(values), "split": name, "images": len(bundle.splits[name])}
    if isinstance(task, Detection):
        return {**scores, "per_class": task.per_class(values)}
    assert isinstance(task, Segmentation)
    details = task.details(values)
    return {**scores, "per_class": details["per_class"], "absent": details["absent"]}


def data_of(path: str | Path, about: About, data: str | None = None, **settings: Any) -> AnnotatedBundle:
    """The images of ``data``, or of the run at ``path``; ``settings`` override those with which it was trained.

    Raises UserError if there are none, or they have other classes than the network.
    """
    config_file = Path(path) / "config.yaml"
    if data is None and not config_file.is_file():
        raise UserError(f"{path} does not say which data it was trained on; name some with --data")
    source = data or from_dict(read_yaml(config_file)).data.source
    experiment = Experiment(about.backbone, None, MethodChoice(about.network), DataConfig(source=source))
    bundle = annotated_data(experiment, dataclasses.replace(about.config, **settings), about.mean, about.std)
    if bundle.classes != about.classes:
        raise UserError(f"{source} has other classes ({len(bundle.classes)}) than the network ({len(about.classes)})")
    return bundle
