"""The weights that a detector or a segmentation network starts from, and its learning rate."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct

from mixskd.artifacts.described_weights import description_as, read_described
from mixskd.backbones import StagedBackbone, build_backbone, check_local, start_from
from mixskd.backbones.pretrained import LIBRARIES, PUBLISHED
from mixskd.backbones.pretrained import normalisation_of as library_normalisation
from mixskd.config import Experiment, OptimConfig
from mixskd.config.records import ShortText, ThreeNumbers, ThreePositive
from mixskd.config.registry import NETWORKS
from mixskd.config.task_kinds import kind_of
from mixskd.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mixskd.errors import UserError
from mixskd.errors.text import counted
from mixskd.transfer.config import TransferConfig
from mixskd.transfer.network_file import read_network


class CommonDescription(Struct):
    """What is taken from the description of any model file of mixskd."""

    backbone: ShortText
    mean: ThreeNumbers
    std: ThreePositive


def scaled(optim: OptimConfig, batch: int, config: TransferConfig) -> tuple[OptimConfig, list[str]]:
    """``optim`` with the learning rate for ``batch`` images (linear scaling rule), and a note if it changed."""
    if config.lr_literal or batch == config.lr_batch:
        return optim, []
    lr = optim.lr * batch / config.lr_batch
    note = (
        f"the learning rate is {lr:g}, since optim.lr {optim.lr:g} is for batches of {config.lr_batch} "
        f"and these are of {batch}; --method.lr-literal true takes it as it is"
    )
    return dataclasses.replace(optim, lr=lr), [note]


def make_network(experiment: Experiment, classes: int, config: TransferConfig) -> tuple[Any, StagedBackbone, list[str]]:
    """The method of ``experiment`` for ``classes``, its backbone, and notes on the weights that they start from.

    The weights are those of a backbone, as :func:`mixskd.backbones.start_from` reads them, or of a whole network of the
    same task that mixskd trained; then only layers of other shapes, such as those of other classes, start at random.
    Raises UserError for weights that do not fit.
    """
    name, weights = experiment.method.name, experiment.weights
    backbone = build_backbone(experiment.backbone, 2)
    if weights is None:
        return NETWORKS[name](backbone, classes, config), backbone, ["the backbone starts from random weights"]
    if "network" not in description_of(weights):
        start_from(backbone, weights)  # its notes are about the classifier, which is not used here
        return NETWORKS[name](backbone, classes, config), backbone, []
    about, tensors = read_network(weights)
    if kind_of(about.network) != kind_of(name) or about.backbone not in (experiment.backbone, backbone.name):
        raise UserError(
            f"a {name} on {experiment.backbone} cannot start from {weights}, which holds a {about.network} on "
            f"{about.backbone}; give the same --backbone, or the weights of a classifier"
        )
    backbone.pretrained = True
    method = NETWORKS[name](backbone, classes, config)
    own = method.backbone.export_state_dict()
    fits = {key for key, value in own.items() if key in tensors and tensors[key].shape == value.shape}
    with torch.no_grad():
        for key in fits:
            own[key].copy_(tensors[key])
    note = f"the network starts from {weights}"
    if new := sorted({key.rpartition(".")[0] for key in own.keys() - fits}):
        note += f", but these layers are new: {', '.join(new)}"
    return method, backbone, [note]


def normalisation_of(backbone: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels with which ``weights`` were trained; ImageNet's if unknown."""
    about = description_of(weights) if weights is not None else {}
    if "mean" in about and "std" in about:
        return tuple(about["mean"]), tuple(about["std"])
    if weights == PUBLISHED or (weights is not None and backbone.startswith(LIBRARIES)):
        return library_normalisation(backbone)
    return IMAGENET_MEAN, IMAGENET_STD


def description_of(weights: str) -> dict[str, Any]:
    """The description in a model file of mixskd, in a run's folder or a file; empty for other weights.

    Raises UserError if it names a backbone that is not of this installation, is for images of other channels than RGB,
    or holds values that a model file cannot hold.
    """
    path = Path(weights) / "model.safetensors" if Path(weights).is_dir() else Path(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    path, about, _ = read_described(path)
    if not about:
        return {}
    if isinstance(means := about.get("mean"), list) and len(means) != 3:
        raise UserError(f"{weights} is for images of {counted(len(means), 'channel')}; detectors and segmentation "
                        "networks take RGB, so give weights for RGB")  # fmt: skip
    description_as(CommonDescription, path, about, {}, digest=False)  # all else is checked when it is loaded
    check_local(about["backbone"])
    return dict(about)
