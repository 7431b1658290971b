"""Trained networks that teach: of a run, a model file, or with the weights that timm and torchvision publish."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from mixskd.artifacts.model_file import load_model
from mixskd.backbones import build_backbone, check_local, start_from
from mixskd.backbones.pretrained import LIBRARIES, PUBLISHED, normalisation_of
from mixskd.backbones.staged import StagedBackbone
from mixskd.config.trusted_backbones import is_elsewhere
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError
from mixskd.methods.parts.own_view import OwnView


def load_teacher(
    source: str, preprocess: Preprocess, classes: Sequence[str], *, several: bool = False, one_size: bool = True
) -> nn.Module:
    """The classifier at ``source``, to be given images as ``preprocess`` makes them, of a student of ``classes``.

    Without ``one_size`` the images change their size during the run.

    ``source`` is a run folder, a model file, or ``timm/NAME`` or ``torchvision/NAME`` with their published weights.
    Where its own size or normalisation is another, it is wrapped in :class:`~mixskd.methods.parts.own_view.OwnView`.
    Raises UserError if it is missing or corrupt, has other classes, or is for one label an image where the student is
    for ``several``, or the other way round.
    """
    network, own = _published(source, classes) if is_library(source) else _trained(source, classes)
    if several != (getattr(network, "task", "") == "multilabel"):
        takes, has = ("several labels", "one") if several else ("one label", "several")
        raise UserError(f"the data have {takes} an image, but the teacher {source} was trained for {has}")
    if (own.channels, own.range) != (preprocess.channels, preprocess.range):
        raise UserError(f"the teacher {source} was trained on images of other channels or another data.range")
    if one_size and (own.image_size, own.mean, own.std) == (preprocess.image_size, preprocess.mean, preprocess.std):
        return network
    return OwnView(network, (preprocess.mean, preprocess.std), (own.mean, own.std), own.image_size)


def teacher_without_weights(
    source: str, student: str, classes: int, image_size: int, channels: int = 3, *, one_size: bool = True
) -> nn.Module:
    """The network of the teacher at ``source`` for images of ``image_size`` pixels, as its operations are counted.

    Where there is none (yet), it is that of the backbone ``student``.
    """
    name, size = (source, None) if is_library(source) else _described(source)
    if name is None or is_elsewhere(name):
        name, size = student, image_size
    else:
        check_local(name)
    network = build_backbone(name, classes, size, channels=channels)
    size = size or network.default_size
    return network if one_size and size == image_size else OwnView(network, ((0,), (1,)), ((0,), (1,)), size)


def _described(source: str) -> tuple[str | None, int | None]:
    """The backbone and image size that a model file names; None if there is no such file."""
    path = Path(source)
    try:
        with safe_open(path / "model.safetensors" if path.is_dir() else path, framework="pt") as file:
            about = json.loads(file.metadata()["mixskd"])
        return str(about["backbone"]), int(about["image_size"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None, None


def is_library(source: str) -> bool:
    """Whether ``source`` names a model of timm or torchvision, and not a file."""
    return source.startswith(LIBRARIES)


def _published(source: str, classes: Sequence[str]) -> tuple[StagedBackbone, Preprocess]:
    if is_elsewhere(source):
        raise UserError(
            f"the teacher {source} would be fetched from elsewhere; train it first, with --backbone {source} "
            "--weights pretrained, and name that run"
        )
    network = build_backbone(source, len(classes))
    if start_from(network, PUBLISHED):  # a note that its classifier is new
        raise UserError(
            f"the published weights of the teacher {source} are not for {len(classes)} classes; train it on this data "
            f"first, with --backbone {source} --weights pretrained, and name that run"
        )
    return network, Preprocess(network.default_size, *normalisation_of(source))


def _trained(source: str, classes: Sequence[str]) -> tuple[StagedBackbone, Preprocess]:
    network = load_model(source)
    if len(network.classes) != len(classes):
        raise UserError(f"the teacher {source} has another number of classes than the data")
    if network.classes != tuple(classes):
        odd = next((a, b) for a, b in zip(network.classes, classes, strict=True) if a != b)
        raise UserError(f"the teacher {source} has other classes than the data: {odd[0]!r} in the place of {odd[1]!r}")
    return network, network.preprocess
