"""A faster bf16 weight gradient for convolutions on small maps or with a stride (CPU); all else is torch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Limits:
    """Where one matrix product beats the library; the defaults are those of the processors where it was tried.

    Args:
        small_map: positions of the output (height times width) up to which any convolution takes it. On maps of 4 x 4
            and fewer it is 1.1 times faster with AVX512-BF16, 4 times with AMX.
        strided_map: the same for a convolution with a stride. AVX512-BF16: 1.8 times faster up to 16 x 16.
        strided_channels: the channels of the input from which on; thinner ones lose within a step.
    """

    small_map: int = 16
    strided_map: int = 256
    strided_channels: int = 128


class SmallMapConvolutions(TorchFunctionMode):
    """While active, the bf16 weight gradient of ``conv2d`` is a matrix product where that is faster.

    The modules and their results stay the same, to the precision of the type.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            if self._applies(images, weight, bias, stride, padding, dilation, groups):
                with torch.autocast("cpu", enabled=False):
                    return _Convolution.apply(images.bfloat16(), weight.bfloat16(), stride, padding)
        return func(*args, **(kwargs or {}))

    def _applies(
        self, images: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> bool:
        if not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16):
            return False
        if bias is not None or groups != 1 or tuple(dilation) != (1, 1) or isinstance(padding, str):
            return False
        if images.device.type != "cpu" or not torch.is_grad_enabled():
            return False
        positions, limits = 1, self.limits
        strided = max(stride) > 1 and weight[0, 0].numel() > 1 and weight.shape[1] >= limits.strided_channels
        for size, kernel, step, pad in zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True):
            positions *= (size + 2 * pad - kernel) // step + 1
        return positions <= (limits.strided_map if strided else limits.small_map)


class _Convolution(torch.autograd.Function):
    """conv2d without bias; the weight gradient is outputs^T x windows, summed in fp32 by the matrix product."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        images, weight = ctx.saved_tensors
        to_images = to_weight = None
        if ctx.needs_input_grad[0]:
            to_images, _, _ = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(gradient, images, weight.shape, ctx.stride, ctx.padding)
        return to_images, to_weight, None, None


def weight_gradient(
    gradient: Tensor, images: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """dL/dW (``O x C x h x w`` = ``shape``) from dL/dy (``B x O x H' x W'``) and the input (``B x C x H x W``)."""
    out_channels, channels, kernel_height, kernel_width = shape
    batch, _, height, width = gradient.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
    image, row, column, channel = padded.stride()
    windows = padded.as_strided(
        (batch, height, width, kernel_height, kernel_width, channels),
        (image, row * stride[0], column * stride[1], row, column, channel),
    )
    outputs = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels)
    product = outputs.t() @ windows.reshape(len(outputs), -1)
    return product.view(out_channels, kernel_height, kernel_width, channels).permute(0, 3, 1, 2)
