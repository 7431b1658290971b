"""A trained classifier scored on the images of one split."""

import dataclasses
from pathlib import Path
from typing import Any

from mixskd.artifacts.model_file import Classifier, load_model
from mixskd.artifacts.stored_files import read_summary
from mixskd.backbones.ensemble import Flips
from mixskd.config import DataConfig
from mixskd.config.build import read_experiment
from mixskd.data import DataBundle, load_data, make_test_loader
from mixskd.data.bundle import SPLITS
from mixskd.data.sources.folder import split_folders
from mixskd.data.splits_file import divided_as
from mixskd.errors import UserError, check_positive
from mixskd.errors.terminal import warn
from mixskd.runtime.precision import choose_device
from mixskd.tasks.labels import task_of
from mixskd.tasks.scoring import score


def evaluate(
    path: str | Path,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    batch_size: int = 256,
    flips: bool = False,
) -> dict[str, Any]:
    """The scores of the classifier at ``path`` as its task has them, ``task``, ``images`` and ``split``.

    For one label an image they are ``top1``, ``top5`` (per cent) and ``loss``; for several ``map``, ``f1``,
    ``f1_macro`` (per cent) and ``loss``, and F1 is that at the thresholds of the model file.

    The images are those of ``split`` of its run, as the run divided them; by default ``test``, or ``val`` if there is
    no ``test``. With ``data`` they are those of another data set; of a plain folder of classes, every image. With
    ``flips`` the probabilities are the mean of those of an image and its mirror image, at twice the cost. Raises
    UserError if the data have other classes than the classifier, or no such split, if neither ``data`` nor the run
    names any, and for flips of images that have no mirror image (``data.flip`` is off).
    """
    check_positive(batch_size=batch_size)
    model = load_model(path)
    bundle, config = evaluation_data(Path(path), model, data, split)
    if split is not None and split not in bundle.splits:  # all of them are read, so that the message names them
        bundle = load_data(config, verify=False, divided=data is None or not is_class_folder(config.source))
    name = chosen_split(bundle, split)
    if flips and not bundle.flip:
        raise UserError(f"a mirror image of {config.source} may show another class (data.flip is off); leave flips out")
    device = choose_device("auto")
    loader = make_test_loader(bundle, device, split=name, workers=config.workers, batch_size=batch_size)
    network = Flips(model, several=model.task == "multilabel") if flips else model
    scores = score(network.to(device), loader, task_of(model), device)
    undivided = list(bundle.splits) == ["train"]
    return {
        **scores,
        "task": model.task,
        "images": len(bundle.splits[name]),
        "split": "all" if undivided else name,
        **({"flips": True} if flips else {}),
    }


def evaluation_data(
    path: Path, model: Classifier, data: str | Path | None, split: str | None = None, *, verify: bool = True
) -> tuple[DataBundle, DataConfig]:
    """The images on which the run at ``path``, whose classifier is ``model``, is scored, preprocessed as it expects.

    Only the files of the wanted ``split`` are read, and none if ``verify`` is off. Raises UserError as
    :func:`evaluate` does.
    """
    config, division = data_of(path, data)
    p = model.preprocess
    config = dataclasses.replace(config, channels=p.channels, range=p.range, eval_size=None, scale_schedule=())
    if Path(config.source).expanduser().is_dir() or config.image_size is not None:
        config = dataclasses.replace(config, image_size=model.image_size)
    only = (split,) if split else tuple(name for name in SPLITS if name != "train")
    plain = data is not None and is_class_folder(config.source)
    if division is not None:  # it lists the images of each split
        whole = load_data(dataclasses.replace(config, per_class=None), verify=False, divided=False)
        bundle = divided_as(whole, division, _summary_with_splits(path))
    else:
        bundle = load_data(config, verify=verify, only=SPLITS if plain else only, divided=not plain)
    if bundle.classes != model.classes:
        raise UserError(
            f"{config.source} has other classes ({len(bundle.classes)}) than the classifier ({len(model.classes)})"
        )
    if bundle.splits and bundle.several != (model.task == "multilabel"):
        has, takes = ("several labels", "one") if bundle.several else ("one label", "several")
        raise UserError(f"{config.source} has {has} an image, but the classifier was trained for {takes}")
    return dataclasses.replace(bundle, preprocess=model.preprocess), config


def data_of(path: Path, data: str | Path | None) -> tuple[DataConfig, Path | None]:
    """The data of the run at ``path``, or ``data``; and the file with the run's splits, if there is one.

    Raises UserError if neither is known.
    """
    config_file, division = path / "config.yaml", path / "splits.csv"
    config = read_experiment(config_file).data if config_file.is_file() else None
    if data is not None:
        return dataclasses.replace(config or DataConfig(), source=str(data), per_class=None, group=None), None
    if config is None:
        raise UserError(f"{path} does not say which data it was trained on; name some with --data")
    summary = _summary_of(path)
    if summary.get("splits_digest") and not division.exists():
        raise UserError(f"{division}, which lists the images of each split, is missing; copy it back, let "
                        "train --resume write it again, or give the images with --data")  # fmt: skip
    if division.exists() and summary.get("splits_digest", "") is None:
        raise UserError(f"{division} does not belong to this run, whose data has splits of its own; remove it")
    return config, division if division.exists() else None


def _summary_of(path: Path) -> dict[str, Any]:
    """The summary of the run at ``path``, empty if it has none. Raises UserError for a damaged one."""
    file = path / "summary.json"
    return read_summary(file) if file.is_file() else {}


def _summary_with_splits(path: Path) -> dict[str, Any]:
    """The summary of the run at ``path``, with a warning if it cannot confirm splits.csv."""
    summary = _summary_of(path)
    if summary.get("splits_digest") is None:
        reason = "summary.json is of an earlier version" if summary else "there is no summary.json"
        warn(f"note: {path / 'splits.csv'} is used without its digest, because {reason}")
    return summary


def chosen_split(data: DataBundle, split: str | None) -> str:
    """``split``, or the one that is scored if None. Raises UserError if the data have no such split."""
    if split is None:
        return next(name for name in ("test", "val", "train") if name in data.splits)
    if split not in data.splits:
        raise UserError(f"there is no split {split!r}; there are: {', '.join(data.splits)}")
    return split


def is_class_folder(source: str) -> bool:
    """Whether ``source`` is a folder of class folders, without splits."""
    path = Path(source).expanduser()
    return path.is_dir() and not split_folders(path) and not any(path.glob("*.tar"))
