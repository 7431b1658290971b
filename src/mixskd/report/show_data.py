"""What a network will see, drawn before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mixskd.config import Experiment
from mixskd.data import DataBundle, load_data, make_train_loader
from mixskd.data.images import decode_image
from mixskd.errors import UserError
from mixskd.experiment import build_method, expected_normalisation
from mixskd.files import check_writable, replacing
from mixskd.methods.base import Method
from mixskd.methods.manifold_mixup import ManifoldMixup
from mixskd.methods.parts.mixing import Mix
from mixskd.needs import Batch
from mixskd.report.plots import label, styled

STEPS = 3  # whose mixes are drawn; the share of one alone may be near 0 or 1
Cell = tuple[np.ndarray, str]
"""An image ``H x W x 3`` with values 0 to 1, and what is written above it."""


def show_data(experiment: Experiment, out: str | Path = "data.png", *, images: int = 8) -> Path:
    """Draw the first ``images`` of a run of ``experiment`` as a PNG: a row each, as they are stored, as they are
    augmented, with the further views, partners and mixes that the method asks for, and their labels.

    Batches are smaller here than in the run, so that the pictures are like the run's, not the very same. Raises
    UserError for data or a method that cannot work, and for fewer images than two.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise UserError(f"{out} is no name of a PNG; name one, such as {out.with_suffix('.png')}")
    if images < 2:
        raise UserError(f"images must be 2 or above, since a mix needs two, not {images}")
    check_writable(out)
    data = load_data(experiment.data)
    columns = seen(experiment, data, min(images, len(data.train)))
    draw(columns, out)
    return out


def seen(experiment: Experiment, data: DataBundle, images: int) -> dict[str, list[Cell]]:
    """The columns of the picture, by title, with ``images`` cells each."""
    if (expected := expected_normalisation(experiment)) is not None:
        mean, std = expected
        data = dataclasses.replace(data, preprocess=dataclasses.replace(data.preprocess, mean=mean, std=std))
    with torch.device("meta"):  # its needs and draws, without its weights
        method, _ = build_method(
            experiment, len(data.classes), data.image_size, len(data.train), weights=False, load=lambda _: _no_teacher()
        )
    needs = dataclasses.replace(method.needs, indices=True)
    config = dataclasses.replace(experiment.data, workers=0)
    loader = make_train_loader(data, config, images, torch.device("cpu"), experiment.run.seed, needs)
    batch: Batch = next(iter(loader.epoch(1)))
    names = [label(str(data.classes[i]), 18) for i in batch.labels.tolist()]
    columns: dict[str, list[Cell]] = {}
    stored = [_stored(data, i) for i in batch.extra["indices"].tolist()]
    if all(image is not None for image in stored):
        columns["stored"] = [(image, name) for image, name in zip(stored, names, strict=True) if image is not None]
    columns["augmented"] = _cells(batch.images, names, data)
    for title in ("views", "partners"):
        for k in range(batch.extra[title].shape[1] if title in batch.extra else 0):
            columns[f"{title} {k + 1}"] = _cells(batch.extra[title][:, k], names, data)
    for k, mix in enumerate(_mixes(method, batch, experiment.run.seed), start=1):
        columns[f"mix {k}"] = _cells(mix(batch.images), _mixed_names(mix, names), data)
    return columns


def _no_teacher() -> torch.nn.Module:
    return torch.nn.Identity()


def _mixes(method: Method, batch: Batch, seed: int) -> Iterator[Mix]:
    """The mixes of images among the random numbers of some steps."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        draws = method.draw(batch.images, generator)
        if isinstance(method, ManifoldMixup) and int(draws[1]) != 0:
            continue  # this one mixes feature maps
        yield from _found(draws)


def _found(draws: Any) -> Iterator[Mix]:
    if isinstance(draws, Mix):
        yield draws
    elif isinstance(draws, list | tuple):
        for part in draws:
            yield from _found(part)


def _mixed_names(mix: Mix, names: list[str]) -> list[str]:
    weights = mix.lam.expand(len(names)).tolist()
    others = [names[i] for i in mix.permutation.tolist()]
    return [f"{w:.2f} {a}\n{1 - w:.2f} {b}" for w, a, b in zip(weights, names, others, strict=True)]


def _cells(images: Tensor, names: list[str], data: DataBundle) -> list[Cell]:
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (data.mean, data.std))
    pixels = (images.float() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return list(zip(pixels, names, strict=True))


def _stored(data: DataBundle, index: int) -> np.ndarray | None:
    """The training image ``index`` before any augmentation; None for one inside a shard."""
    image = data.train.images[index]
    if data.train.in_memory:
        return np.asarray(image)
    return np.asarray(decode_image(image, enough=data.image_size)) if isinstance(image, Path) else None


def draw(columns: dict[str, list[Cell]], out: Path) -> None:
    """Write ``columns`` as a PNG; a row of the picture is one image of the batch."""
    rows = len(next(iter(columns.values())))
    with styled():
        figure = Figure(figsize=(1.7 * len(columns), 1.9 * rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, len(columns), squeeze=False)
        for column, (title, cells) in enumerate(columns.items()):
            for row, (image, text) in enumerate(cells):
                ax = grid[row, column]
                ax.imshow(image, interpolation="nearest")
                ax.set_axis_off()
                ax.set_title(f"{title}\n{text}" if row == 0 else text, fontsize=7)
        with replacing(out) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
