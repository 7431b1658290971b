"""The networks that are deployed, by name."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mixskd.backbones.averaged import AVERAGE, build_average, members_of
from mixskd.backbones.densenet import densenet_40_12
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
from mixskd.errors import unknown

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
    name: str, num_classes: Count, image_size: Count | None = None, weights: str | Path | None = None
) -> StagedBackbone:
    """Build the backbone ``name`` with ``num_classes`` outputs.

    ``name`` is a key of ``BACKBONES``, ``wrn_D_W`` for any depth and width, or ``timm/NAME`` or ``torchvision/NAME``
    for any classifier of these libraries, or ``hf/FOLDER``
    for one of transformers in a folder. Without ``weights`` (see :func:`start_from`) it is initialised at random.
    ``image_size``, in pixels, matters only for models with one fixed size.

    Raises UserError for an unknown name, an image size that the model cannot take, or weights that do not fit.
    """
    load_plugins()
    backbone = _fresh(name, num_classes, image_size)
    if weights is not None:
        start_from(backbone, str(weights))
    return backbone


def check_local(name: str) -> None:
    """Raise UserError unless ``name``, which was read from a file, is a backbone of this installation.

    timm would fetch a configuration for names with ``hf-hub:`` or ``local-dir:``; only a person may give such a name.
    """
    load_plugins()
    if name.startswith(PREFIX):
        check_timm_architecture(name)
    elif name.startswith(HF):
        folder_of(name)
    elif name.startswith(AVERAGE):
        for member in set(members_of(name)):
            check_local(member)
    elif not name.startswith(TORCHVISION) and name not in BACKBONES and not re.fullmatch(WIDE_RESNET, name):
        raise unknown("backbone", name, BACKBONES)


def _fresh(name: str, num_classes: int, image_size: int | None) -> StagedBackbone:
    if name.startswith(PREFIX):
        return timm_backbone(name, num_classes, image_size)
    if name.startswith(TORCHVISION):
        return torchvision_backbone(name, num_classes, image_size)
    if name.startswith(AVERAGE):
        return build_average(name, lambda member: _fresh(member, num_classes, image_size))
    if name.startswith(HF):
        return transformers_backbone(name, num_classes, image_size)
    if name in BACKBONES:
        return BACKBONES[name](num_classes)
    if match := re.fullmatch(WIDE_RESNET, name):
        return wide_resnet(num_classes, depth=int(match[1]), width=int(match[2]))
    raise unknown("backbone", name, BACKBONES)


__all__ = ["BACKBONES", "StagedBackbone", "build_backbone", "check_local", "start_from", "wrap"]
