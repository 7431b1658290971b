"""Grad-CAM: the places of an image that speak for a class (Selvaraju et al., 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones import StagedBackbone


def grad_cam(model: StagedBackbone, images: Tensor, classes: Sequence[int]) -> Tensor | None:
    """How much each place of normalised ``images`` (``B x 3 x H x W``) speaks for its one of ``classes``: ``B x H x W``
    from 0 to 1, or None for a network whose last map has no positions, or a class token beside them.

    It is ReLU(sum_k a_k A_k) divided by its largest value, resized to the image. A_k are the channels of the last
    stage's map, and a_k is the mean over positions of the gradient of the class's logit by A_k (Eq. 1 and 2).
    """
    with torch.no_grad():
        last = model.feature_maps(images)[-1]
    if not isinstance(last, Tensor) or last.ndim != 4 or last[0, 0].numel() == 1:
        return None
    last = last.detach().requires_grad_()
    with torch.enable_grad():
        logits = model.head(model.pooled(last))
        (gradient,) = torch.autograd.grad(logits[range(len(images)), list(classes)].sum(), last)
    maps = (gradient.mean((2, 3), keepdim=True) * last.detach()).sum(1, keepdim=True).relu()
    maps = maps / maps.amax((2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return F.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0]
