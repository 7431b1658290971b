"""Convolutions on small maps or with a stride as matrix products, where a CPU computes those faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """Where one matrix product beats the library in one part of a convolution; by default nowhere.

    Args:
        small_map: positions of the output (height times width) up to which any convolution takes the product.
        small_channels: the channels of the input from which on.
        strided_map: the same as ``small_map`` for a convolution with a stride.
        strided_channels: the channels of the input from which on a convolution with a stride takes it.
    """

    small_map: int = 0
    small_channels: int = 0
    strided_map: int = 0
    strided_channels: int = 0

    def hold(self, positions: int, channels: int, *, strided: bool) -> bool:
        """Whether the product is taken for an output of so many positions and an input of so many channels."""
        if positions <= self.small_map and channels >= self.small_channels:
            return True
        return strided and positions <= self.strided_map and channels >= self.strided_channels


@dataclass(frozen=True)
class SmallMaps:
    """The :class:`Limits` of the three parts of a convolution: the output, and the gradients of images and weight."""

    output: Limits = Limits()
    to_images: Limits = Limits()
    to_weight: Limits = Limits()

    def __bool__(self) -> bool:
        return self != SmallMaps()


# Without a measurement: where the product was faster on the processors where it was tried. In bf16 it was 1.1 times
# faster with AVX512-BF16 and 4 times with AMX on maps of 4 x 4 and fewer. With a stride it was 1.8 times faster with
# AVX512-BF16 up to 16 x 16; thinner inputs lose within a step.
USUAL = {"fp32": SmallMaps(), "bf16": SmallMaps(to_weight=Limits(16, 0, 256, 128))}


class SmallMapConvolutions(TorchFunctionMode):
    """While active, ``conv2d`` in bf16 or fp32 on the CPU is made of matrix products where ``small_maps`` says so.

    The modules and their results stay the same, to the precision of the type.
    """

    def __init__(self, small_maps: SmallMaps) -> None:
        super().__init__()
        self.small_maps = small_maps

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d and not kwargs and len(args) == 7 and (dtype := _type(*args)) is not None:
            images, weight, _, stride, padding, _, _ = args
            products = self._products(images, weight, stride, padding)
            if any(products):
                with torch.autocast("cpu", enabled=False):
                    return _Convolution.apply(images.to(dtype), weight.to(dtype), stride, padding, products)
        return func(*args, **(kwargs or {}))

    def _products(self, images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> tuple[bool, bool, bool]:
        """Which parts are matrix products: the output, and the gradients of images and weight."""
        kernel, channels = weight.shape[2:], weight.shape[1]
        height, width = output_size(images.shape[2:], kernel, stride, padding)
        larger = kernel.numel() > 1  # the library's 1 x 1 is a product
        strided = max(stride) > 1 and larger

        def taken(limits: Limits) -> bool:
            return limits.hold(height * width, channels, strided=strided)

        products = self.small_maps
        return larger and taken(products.output), larger and taken(products.to_images), taken(products.to_weight)


def _type(
    images: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> torch.dtype | None:
    """The type in which this convolution would be computed; None if it cannot be made of products."""
    if bias is not None or groups != 1 or tuple(dilation) != (1, 1) or isinstance(padding, str):
        return None
    if images.device.type != "cpu":
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    return dtype if dtype in (torch.bfloat16, torch.float32) else None


class _Convolution(torch.autograd.Function):
    """conv2d without bias, each part a matrix product or the library's; products sum in fp32."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, products: tuple[bool, bool, bool]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding, ctx.products = stride, padding, products[1:]
        if products[0]:
            return output(images, weight, stride, padding)
        return F.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        images, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        ours = [need and product for need, product in zip(needed, ctx.products, strict=True)]
        theirs = [need and not product for need, product in zip(needed, ctx.products, strict=True)]
        to_images = to_weight = None
        if any(theirs):
            to_images, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (*theirs, False)
            )
        if ours[0]:
            to_images = image_gradient(gradient, weight, images.shape, ctx.stride, ctx.padding)
        if ours[1]:
            to_weight = weight_gradient(gradient, images, weight.shape, ctx.stride, ctx.padding)
        return to_images, to_weight, None, None, None


def output(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """conv2d of images (``B x C x H x W``) and weight (``O x C x h x w``): ``B x O x H' x W'``, channels last."""
    size = output_size(images.shape[2:], weight.shape[2:], stride, padding)
    rows = windows(_padded(images, padding, padding), size, weight.shape[2:], stride)
    return _as_maps(rows @ weight.permute(2, 3, 1, 0).reshape(rows.shape[1], -1), size)


def image_gradient(gradient: Tensor, weight: Tensor, shape: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """dL/dx (``B x C x H x W`` = ``shape``) from dL/dy (``B x O x H' x W'``) and the weight (``O x C x h x w``).

    With a stride of s, the positions of one remainder modulo s meet every s-th row (column) of the kernel only. So they
    are a convolution of dL/dy without a stride, by those rows in reverse order.
    """
    found = gradient.new_zeros(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    for remainders in ((i, j) for i in range(stride[0]) for j in range(stride[1])):
        taps = weight[:, :, remainders[0] :: stride[0], remainders[1] :: stride[1]]
        if not taps.numel():
            continue
        # Of the padded positions stride * m + remainder, those from first to last lie within the image.
        first = [-((r - p) // s) for r, p, s in zip(remainders, padding, stride, strict=True)]
        last = [(p + n - 1 - r) // s for r, p, n, s in zip(remainders, padding, shape[2:], stride, strict=True)]
        size = (last[0] - first[0] + 1, last[1] - first[1] + 1)
        if min(size) < 1:
            continue
        before = [t - 1 - f for t, f in zip(taps.shape[2:], first, strict=True)]
        after = [f - (n - 1) for f, n in zip(last, gradient.shape[2:], strict=True)]
        rows = windows(_padded(gradient, before, after), size, taps.shape[2:], (1, 1))
        product = rows @ taps.flip(2, 3).permute(2, 3, 0, 1).reshape(rows.shape[1], -1)
        top, left = (s * f + r - p for s, f, r, p in zip(stride, first, remainders, padding, strict=True))
        found[:, :, top :: stride[0], left :: stride[1]] = _as_maps(product, size)
    return found


def weight_gradient(gradient: Tensor, images: Tensor, shape: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """dL/dW (``O x C x h x w`` = ``shape``) from dL/dy (``B x O x H' x W'``) and the images (``B x C x H x W``)."""
    out_channels, channels, *kernel = shape
    rows = windows(_padded(images, padding, padding), gradient.shape[2:], kernel, stride)
    product = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels).t() @ rows
    return product.view(out_channels, *kernel, channels).permute(0, 3, 1, 2)


def output_size(size: Any, kernel: Any, stride: Pair, padding: Pair) -> Pair:
    """Height and width of conv2d's output."""
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return height, width


def windows(maps: Tensor, size: Any, kernel: Any, stride: Pair) -> Tensor:
    """The windows of ``kernel`` in ``maps`` (``B x H x W x C``, contiguous) at the first ``size`` positions, ``stride``
    apart: ``(B * height * width) x (h * w * C)``.
    """
    image, row, column, channel = maps.stride()
    view = maps.as_strided(
        (len(maps), *size, *kernel, maps.shape[3]),
        (image, row * stride[0], column * stride[1], row, column, channel),
    )
    return view.reshape(len(maps) * size[0] * size[1], -1)


def _padded(maps: Tensor, before: Any, after: Any) -> Tensor:
    """Channels last (``B x H x W x C``), with zeros before and after rows and columns; negative numbers cut off."""
    return F.pad(maps.permute(0, 2, 3, 1), (0, 0, before[1], after[1], before[0], after[0])).contiguous()


def _as_maps(rows: Tensor, size: Any) -> Tensor:
    """``(B * height * width) x C`` as ``B x C x height x width``."""
    return rows.view(-1, *size, rows.shape[1]).permute(0, 3, 1, 2)
