"""Check that a detector or a segmentation network can be built on a backbone: on maps of the strides 4 to 32."""

import copy

import torch

from mixskd.backbones import StagedBackbone
from mixskd.backbones.tokens import spatial
from mixskd.errors import UserError

STRIDES = (4, 8, 16, 32)


def check_strides(backbone: StagedBackbone) -> None:
    """Raises UserError unless ``backbone`` takes images of any size and its stage maps have the strides 4 to 32."""
    user = "a detector or a segmentation network"
    backbone.require_stages(user)
    if backbone.fixed:
        raise UserError(f"{backbone.name} takes images of one size only; {user} needs a backbone for any size")
    probe = copy.deepcopy(backbone).to("meta").eval()
    maps = probe.feature_maps(torch.empty(2, backbone.in_channels, 256, 256, device="meta"))
    strides = tuple(256 // spatial(one).shape[-1] for one in maps)
    if strides != STRIDES:
        raise UserError(
            f"{backbone.name} has maps of strides {', '.join(map(str, strides))}, but 4, 8, 16, 32 are needed; "
            "take a backbone for large images, such as resnet18 or resnet50"
        )
