"""A faster bf16 weight gradient for convolutions on small maps or with a stride (CPU); all else is torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Where one matrix product beats the library. On maps of 4 x 4 and fewer: AVX512-BF16 1.1x, AMX 4x. With a stride, up to
# 16 x 16 and from 128 channels on: AVX512-BF16 1.8x; thinner ones lose within a step (benchmarks/README.md).
SMALL_MAP, STRIDED_MAP, STRIDED_CHANNELS = 16, 256, 128


class SmallMapConvolutions(TorchFunctionMode):
    """While active, the bf16 weight gradient of ``conv2d`` is a matrix product where that is faster.

    The modules and their results stay the same, to the precision of the type.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            if _applies(images, weight, bias, stride, padding, dilation, groups):
                with torch.autocast("cpu", enabled=False):
                    return _Convolution.apply(images.bfloat16(), weight.bfloat16(), stride, padding)
        return func(*args, **(kwargs or {}))


def _applies(images: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    if not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16):
        return False
    if bias is not None or groups != 1 or tuple(dilation) != (1, 1) or isinstance(padding, str):
        return False
    if images.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    positions, strided = 1, max(stride) > 1 and weight[0, 0].numel() > 1 and weight.shape[1] >= STRIDED_CHANNELS
    for size, kernel, step, pad in zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True):
        positions *= (size + 2 * pad - kernel) // step + 1
    return positions <= (STRIDED_MAP if strided else SMALL_MAP)


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
