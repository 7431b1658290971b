"""The scores of a trained detector or segmentation network on a split of its data or of others."""

from pathlib import Path
from typing import Any

import torch

from mixskd.config.build import read_experiment
from mixskd.config.data import DataConfig
from mixskd.data import worker_count
from mixskd.errors import UserError
from mixskd.runtime.precision import choose_device
from mixskd.tasks.scoring import evaluation_mode, on
from mixskd.transfer.annotated import AnnotatedBundle, load_annotated
from mixskd.transfer.loaders import InOrder
from mixskd.transfer.network_file import NetworkDescription, load_network
from mixskd.transfer.pipeline import Pipeline


@torch.inference_mode()
def evaluate(path: str | Path, data: str | None = None, *, split: str | None = None) -> dict[str, Any]:
    """The scores of the network at ``path`` with those of each class, on a split of ``data`` or of its run's data.

    ``split`` is ``test`` if not given, or ``val`` if there is no test. Raises UserError if the data have other
    classes, or no such split with annotations.
    """
    model, about = load_network(path)
    pipeline = about.pipeline()
    bundle = data_of(path, about, pipeline, data)
    name = split or next(name for name in ("test", "val") if name in bundle.splits)
    if name not in bundle.splits:
        raise UserError(
            f"{bundle.source} has no split {name!r} with annotations, so there are no scores; "
            f"choose from {', '.join(bundle.splits)}"
        )
    device = choose_device("auto")
    task = pipeline.task(bundle.annotated["train"])
    metrics = task.metrics().to(device)
    model.to(device)
    with evaluation_mode(model):
        for images, targets in InOrder(*pipeline.scoring(bundle.annotated[name]), workers=worker_count(None)):
            metrics.update(task.predict(model, on(device, images)), on(device, targets))
    values = metrics.compute()
    details = {key: value for key, value in task.details(values).items() if key in ("per_class", "absent")}
    return {**task.scores(values), "split": name, "images": len(bundle.splits[name]), **details}


def data_of(
    path: str | Path, about: NetworkDescription, pipeline: Pipeline, data: str | None = None
) -> AnnotatedBundle:
    """The images of ``data``, or of the run at ``path``. Raises UserError if they are missing or have other classes."""
    config_file, settings = Path(path) / "config.yaml", DataConfig()
    if config_file.is_file():
        settings = read_experiment(config_file).data
        data = data or settings.source
    if data is None:
        raise UserError(f"{path} does not say which data it was trained on; name some with --data")
    bundle = load_annotated(pipeline, data, about.mean, about.std, settings)
    if bundle.classes != about.classes:
        raise UserError(f"{data} has other classes ({len(bundle.classes)}) than the network ({len(about.classes)})")
    return bundle
