"""What detection and segmentation share: settings, the linear scaling rule, and the weights that they start from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from mixskd.artifacts.described_file import read_described
from mixskd.backbones import StagedBackbone, build_backbone, check_local, start_from
from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.from_torchvision import TORCHVISION
from mixskd.backbones.pretrained import PUBLISHED
from mixskd.backbones.pretrained import normalisation_of as library_normalisation
from mixskd.config import Experiment
from mixskd.config.records import Mismatch, ShortText, ThreeNumbers, ThreePositive, read_record
from mixskd.config.types import Count, Settings
from mixskd.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mixskd.errors import UserError


class Description(Struct):
    """What is taken from the description of any model file of mixskd."""

    backbone: ShortText
    mean: ThreeNumbers
    std: ThreePositive


@dataclass(frozen=True)
class TransferConfig(Settings, prefix="method."):
    """Settings of every network that is put on a backbone.

    Args:
        skip_bad_annotations: leave bad annotations out and count them, instead of stopping.
        iterations: optimizer steps of the whole run, divided evenly into ``run.epochs`` parts. The network is scored
            after each part. If not given, an epoch is a pass over the images.
        lr_batch: the batch size for which ``optim.lr`` is meant; for another batch size the rate is scaled in
            proportion.
        lr_literal: use ``optim.lr`` as it is, whatever the batch size.
    """

    skip_bad_annotations: bool = False
    iterations: Count | None = None
    lr_batch: Count = 16
    lr_literal: bool = False

    def length(self, epochs: int) -> int | None:
        """Steps in an epoch; None for those of one pass. Raises UserError if ``iterations`` cannot be divided so."""
        if self.iterations is None:
            return None
        if self.iterations % epochs:
            raise UserError(
                f"method.iterations {self.iterations} cannot be divided into run.epochs {epochs} equal parts; "
                "give a multiple of it"
            )
        return self.iterations // epochs


def scaled(experiment: Experiment, config: TransferConfig) -> tuple[Experiment, list[str]]:
    """``experiment`` with the learning rate for its batch size (linear scaling rule), and a note if it changed."""
    batch = experiment.run.batch_size
    if config.lr_literal or batch == config.lr_batch:
        return experiment, []
    lr = experiment.optim.lr * batch / config.lr_batch
    note = (
        f"the learning rate is {lr:g}, since optim.lr {experiment.optim.lr:g} is for batches of {config.lr_batch} "
        f"and these are of {batch}; --method.lr-literal true takes it as it is"
    )
    return dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, lr=lr)), [note]


def make_backbone(name: str, weights: str | None) -> tuple[StagedBackbone, list[str]]:
    """The backbone ``name``, from ``weights`` as :func:`mixskd.backbones.start_from` reads them, and notes.

    What these say of the classifier is left out, as a detector or a segmentation network has none.
    """
    backbone = build_backbone(name, 2)
    if weights is None:
        return backbone, ["the backbone starts from random weights"]
    start_from(backbone, weights)
    return backbone, []


def normalisation_of(backbone: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels with which ``weights`` were trained; ImageNet's if unknown."""
    about = description_of(weights) if weights is not None else {}
    if "mean" in about and "std" in about:
        return tuple(about["mean"]), tuple(about["std"])
    if weights == PUBLISHED or (weights is not None and backbone.startswith((PREFIX, TORCHVISION))):
        return library_normalisation(backbone)
    return IMAGENET_MEAN, IMAGENET_STD


def description_of(weights: str) -> dict[str, Any]:
    """What a model file of mixskd says of itself, in a run's folder or a file; empty for other weights.

    Raises UserError if it names a backbone that is not of this installation, or values that a model file cannot hold.
    """
    path = Path(weights) / "model.safetensors" if Path(weights).is_dir() else Path(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    path, about, _ = read_described(path)
    if not about:
        return {}
    try:
        read_record(about, Description)
    except Mismatch as error:
        raise UserError(f"{path} is damaged: {error}; copy or train it again") from None
    check_local(about["backbone"])
    return dict(about)
