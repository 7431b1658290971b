"""The networks that are deployed, by name."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mixskd.backbones.densenet import densenet_40_12
from mixskd.backbones.ensemble import Ensemble, is_ensemble, members_of
from mixskd.backbones.from_timm import PREFIX, check_timm_architecture, timm_backbone
from mixskd.backbones.from_torchvision import TORCHVISION, torchvision_backbone
from mixskd.backbones.from_transformers import HF, folder_of, transformers_backbone
from mixskd.backbones.hcgnet import hcgnet_a1
from mixskd.backbones.pretrained import start_from
from mixskd.backbones.resnet import CIFAR_RESNETS, RESNETS, wide_resnet
from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.wrapping import wrap
from mixskd.config.arguments import checked
from mixskd.config.plugins import load_plugins
from mixskd.config.types import Count
from mixskd.errors import UserError, unknown

BACKBONES: dict[str, Callable[[int], StagedBackbone]] = {
    **CIFAR_RESNETS,
    "wrn_16_2": partial(wide_resnet, depth=16, width=2),
    "densenet_40_12": densenet_40_12,
    "hcgnet_a1": hcgnet_a1,
    **RESNETS,
}

WIDE_RESNET = r"wrn_([0-9]{1,6})_([0-9]{1,6})"


@checked
def build_backbone(
    name: str,
    num_classes: Count,
    image_size: Count | None = None,
    weights: str | Path | None = None,
    channels: Count = 3,
) -> StagedBackbone:
    """Build the backbone ``name`` with ``num_classes`` outputs.

    ``name`` is a key of ``BACKBONES``, ``wrn_D_W`` for any depth and width, or ``timm/NAME`` or ``torchvision/NAME``
    for any classifier of these libraries, ``hf/FOLDER`` for one of transformers in a folder, or ``ensemble/A+B`` for
    the mean of the probabilities of several (see :mod:`mixskd.backbones.ensemble`). Without ``weights`` (see
    :func:`start_from`) it is initialised at random. ``image_size``, in pixels, matters only for models with one fixed
    size. ``channels`` are those of the images.

    Raises UserError for an unknown name, an image size that the model cannot take, or weights that do not fit.
    """
    load_plugins()
    backbone = _fresh(name, num_classes, image_size, channels)
    if weights is not None:
        start_from(backbone, str(weights))
    return backbone


def check_local(name: str) -> None:
    """Raise UserError unless ``name``, which was read from a file, is a backbone of this installation.

    timm would fetch a configuration for names with ``hf-hub:`` or ``local-dir:``; only a person may give such a name.
    """
    load_plugins()
    if is_ensemble(name):
        for member in members_of(name):
            check_local(member)
    elif name.startswith(PREFIX):
        check_timm_architecture(name)
    elif name.startswith(HF):
        folder_of(name)
    elif not name.startswith(TORCHVISION) and name not in BACKBONES and not re.fullmatch(WIDE_RESNET, name):
        raise unknown("backbone", name, BACKBONES)


def _fresh(name: str, num_classes: int, image_size: int | None, channels: int) -> StagedBackbone:
    if is_ensemble(name):
        check_local(name)  # what is asked of a single name elsewhere would miss those inside this one
        return Ensemble([_fresh(member, num_classes, image_size, channels) for member in members_of(name)], name)
    if name.startswith(PREFIX):
        return timm_backbone(name, num_classes, image_size, channels)
    if name.startswith(TORCHVISION):
        return torchvision_backbone(name, num_classes, image_size, channels)
    backbone: StagedBackbone
    if name.startswith(HF):
        if channels != 3:
            raise UserError(f"{name} takes images of 3 channels; leave data.channels out")
        backbone = transformers_backbone(name, num_classes, image_size)
    elif name in BACKBONES:
        backbone = BACKBONES[name](num_classes)
    elif match := re.fullmatch(WIDE_RESNET, name):
        backbone = wide_resnet(num_classes, depth=int(match[1]), width=int(match[2]))
    else:
        raise unknown("backbone", name, BACKBONES)
    backbone.take_channels(channels)
    return backbone


__all__ = ["BACKBONES", "StagedBackbone", "build_backbone", "check_local", "start_from", "wrap"]
