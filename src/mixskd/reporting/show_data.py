"""Draw a batch as the network will see it, before training."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mixskd.config import Experiment
from mixskd.data import DataBundle, load_data, make_train_loader
from mixskd.data.batch import Batch
from mixskd.data.preprocess import image_tensor
from mixskd.data.worker_loader import Images
from mixskd.drawing.picture import Cell, cells, picture, shown
from mixskd.drawing.plots import label, styled
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.parts.mixing import Mix
from mixskd.runtime.files import check_writable, replacing
from mixskd.tasks.labels import label_task
from mixskd.training.classification import build_method, build_network, normalised

STEPS = 3  # of which the mixes are drawn: the share of a single one may be near 0 or 1


def show_data(experiment: Experiment, out: str | Path = "data.png", *, images: int = 8) -> Path:
    """Draw the first ``images`` of a run of ``experiment`` as a PNG: a row each, as they are stored, as they are
    augmented, with the further views, partners and mixes that the method asks for, and their labels.

    Batches are smaller here than in the run, so that the pictures are like the run's, not the very same. Raises
    UserError for data or a method that cannot work, and for fewer images than two.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise UserError(f"{out} is not the name of a PNG file; name one, such as {out.with_suffix('.png')}")
    if images < 2:
        raise UserError(f"images must be 2 or above, since a mix needs two, not {images}")
    check_writable(out)
    data = load_data(experiment.data)
    columns = batch_columns(experiment, data, min(images, len(data.train)))
    figure = picture(columns)
    with styled(), replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return out


def batch_columns(experiment: Experiment, data: DataBundle, images: int) -> dict[str, list[Cell]]:
    """The columns of the picture, by title, with ``images`` cells each."""
    data = normalised(data, experiment.data, experiment.backbone, experiment.weights)
    with torch.device("meta"):  # its needs and draws, without its weights
        network = build_network(experiment.backbone, len(data.classes), data.image_size, data.preprocess.channels)
        method = build_method(
            experiment.method, network, len(data.train), experiment.run.batch, load=lambda _: torch.nn.Identity()
        )
    needs = dataclasses.replace(method.needs, indices=True)
    config = dataclasses.replace(experiment.data, workers=0)
    loader = make_train_loader(data, config, images, torch.device("cpu"), experiment.run.seed, needs)
    batch = next(iter(loader.epoch(1)))
    assert isinstance(batch, Batch)
    task = label_task(len(data.classes), several=data.several)
    names = [label(name, 18) for name in task.label_names(batch.labels, data.classes)]
    columns: dict[str, list[Cell]] = {}
    stored = [_stored(data, i) for i in batch.extra["indices"].tolist()]
    if all(image is not None for image in stored):
        columns["stored"] = [(image, name) for image, name in zip(stored, names, strict=True) if image is not None]
    columns["augmented"] = cells(batch.images, names, data.mean, data.std)
    for title in ("views", "partners"):
        for k in range(batch.extra[title].shape[1] if title in batch.extra else 0):
            columns[f"{title} {k + 1}"] = cells(batch.extra[title][:, k], names, data.mean, data.std)
    for k, mix in enumerate(_mixes(method, batch, experiment.run.seed), start=1):
        columns[f"mix {k}"] = cells(mix(batch.images), mix.names(names), data.mean, data.std)
    return columns


def _mixes(method: Method, batch: Batch, seed: int) -> Iterator[Mix]:
    """The mixes of images among the random numbers of some steps."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        yield from method.image_mixes(method.draw(batch.images, generator))


def _stored(data: DataBundle, index: int) -> np.ndarray | None:
    """The training image ``index`` before any augmentation; None for one inside a shard."""
    if not data.train.in_memory and not isinstance(data.train.images[index], Path):
        return None
    image = image_tensor(Images(data.train, {}, data.training, max_pixels=data.max_pixels).open(index))
    return shown(image if image.is_floating_point() else image / 255)
