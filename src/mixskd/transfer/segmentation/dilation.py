"""Dilating a ResNet: finer maps from the same weights."""

from __future__ import annotations

from torch import nn

from mixskd.backbones import StagedBackbone
from mixskd.errors import UserError
from mixskd.transfer.detection.pyramid import check_strides


def dilate(backbone: StagedBackbone, output_stride: int) -> None:
    """Change the stride of the last map of ``backbone`` from 32 to ``output_stride`` (8, 16 or 32), in place.

    The last one or two stages keep the size of their input, and their 3x3 convolutions are dilated by 2 and 4. The
    convolution that had the stride is dilated by half of that, as in torchvision and timm. The weights do not change.
    Raises UserError for another stride, and for a backbone whose stages do not begin with a strided convolution.
    """
    if output_stride not in (8, 16, 32):
        raise UserError(f"the output stride must be 8, 16 or 32, not {output_stride}")
    check_strides(backbone)
    dilation = 1
    for stage in list(backbone.stages)[{8: 2, 16: 3, 32: 4}[output_stride] :]:
        convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
        if not any(conv.stride == (2, 2) for conv in convolutions) or any(
            isinstance(module, nn.AvgPool2d | nn.MaxPool2d) for module in stage.modules()
        ):
            raise UserError(
                f"{backbone.name} cannot be dilated; --method.output-stride 32 uses it as it is, "
                "or take a ResNet, such as resnet18 or resnet50"
            )
        before, dilation = dilation, 2 * dilation
        for conv in convolutions:
            rate = before if conv.stride == (2, 2) else dilation
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (rate, rate)
