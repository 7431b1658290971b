"""Grad-CAM: the places of an image that speak for a class (Selvaraju et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import TokenMap, spatial


def grad_cam(model: StagedBackbone, images: Tensor, classes: Tensor) -> Tensor:
    """Maps ``B x H x W`` from 0 to 1 of where normalised ``images`` (``B x 3 x H x W``) speak for ``classes`` (``B``).

    relu(sum_c a_c F_c) over the channels of the last map F, where a_c is the mean of the gradient of the logit of the
    class, enlarged to the image and divided by its maximum. Where a class token is pooled, it is the map before the
    last stage, since the other tokens of the last one have no gradient. Raises UserError for a network without stages.
    """
    model.require_stages("Grad-CAM")
    with torch.enable_grad():
        maps = model.eval().feature_maps(images)
        tokens = isinstance(maps[-1], TokenMap) and len(maps) > 1
        chosen = spatial(maps[-2 if tokens else -1])
        logits = model.head(model.pooled(maps[-1])).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(logits, chosen)
    heat = (gradient.mean((2, 3), keepdim=True) * chosen).sum(1, keepdim=True).relu().detach()
    heat = interpolate(heat.float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)
