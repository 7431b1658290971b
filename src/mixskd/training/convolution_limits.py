"""Up to which maps a matrix product is the faster way to compute a convolution on this processor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mixskd.runtime.precision import TYPES
from mixskd.training.convolution import USUAL, Limits, SmallMaps, image_gradient, output, weight_gradient
from mixskd.training.measurements import race, remembered

# How much faster the product must be, alone, to be taken. Its windows go through the memory, which costs more within a
# step, with a stride or for thin inputs: 1.46 times alone gained nothing there, 1.8 times did (benchmarks/README.md).
WIDE_GAIN, OTHER_GAIN = 1.05, 1.5
WIDE = 256

# The parts of a convolution; the one that gains most comes first, since the time may end.
PARTS = ("to_weight", "to_images", "output")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A 3x3 convolution of ``batch`` maps to ``side x side`` positions, of ``channels`` to ``outputs`` channels."""

    batch: int
    channels: int
    outputs: int
    side: int
    stride: int = 1


# Each some 1 to 2 GFLOP: a call takes milliseconds. With fewer images the sum of a weight gradient would be too short.
PLAIN = {
    (side, channels): Shape(batch, channels, channels, side)
    for side, channels, batch in ((4, 256, 64), (4, 128, 256), (8, 256, 16), (8, 128, 64))
}
STRIDED = {channels: Shape(batch, channels, 2 * channels, 8, 2) for channels, batch in ((128, 64), (256, 16))}
# Thinner inputs lost within a step wherever they were tried.
LEAST_CHANNELS = 128

Gain = Callable[[str, Shape, float], float]


class TooLate(Exception):
    """No time is left for a further shape."""


def limits_here(precision: str, seconds: float) -> SmallMaps:
    """The limits for this processor, measured within some ``seconds`` or at an earlier start; else the usual ones."""
    usual = USUAL[precision]

    def measure() -> dict[str, float]:
        return _flat(measure_limits(lambda *shape: gain_of(precision, *shape), seconds, usual))

    found = remembered(f"products in place of convolutions in {precision}", measure)
    return _of_flat(found) if found and found.keys() == _flat(usual).keys() else usual


def measure_limits(gain: Gain, seconds: float, usual: SmallMaps) -> SmallMaps:
    """The limits by ``gain``: how many times faster the product is in a part for a shape, found within some seconds.

    What no time is left for stays as ``usual``.
    """
    begun = time.perf_counter()
    turn, took = seconds / 8, [seconds / 8]

    def wins(part: str, shape: Shape) -> bool:
        """Whether the product is taken; raises TooLate if the time would end, should it take as long as the slowest."""
        start = time.perf_counter()
        if start + max(took) > begun + seconds:
            raise TooLate
        found = gain(part, shape, turn)
        took.append(time.perf_counter() - start)
        return found >= (WIDE_GAIN if shape.stride == 1 and shape.channels >= WIDE else OTHER_GAIN)

    found = dataclasses.asdict(usual)
    try:
        for part in PARTS:
            found[part] |= _small(partial(wins, part))
            found[part] |= _strided(partial(wins, part))
    except TooLate:
        pass
    return SmallMaps(**{part: Limits(**limits) for part, limits in found.items()})


def _small(wins: Callable[[Shape], bool]) -> dict[str, int]:
    """The limits without a stride: the largest map of wide inputs, then the thinnest input of such maps."""
    if not wins(PLAIN[4, 256]):
        return {"small_map": 0, "small_channels": 0}
    side = 8 if wins(PLAIN[8, 256]) else 4
    channels = 128 if wins(PLAIN[side, 128]) else 256
    return {"small_map": side * side, "small_channels": channels}


def _strided(wins: Callable[[Shape], bool]) -> dict[str, int]:
    """The limits with a stride: the thinnest input of small maps, then whether a larger map may be."""
    if not wins(STRIDED[256]):
        return {"strided_map": 0, "strided_channels": 0}
    channels = 128 if wins(STRIDED[128]) else 256
    larger = dataclasses.replace(STRIDED[channels], side=16, batch=max(STRIDED[channels].batch // 4, 1))
    side = 16 if wins(larger) else 8
    return {"strided_map": side * side, "strided_channels": channels}


def gain_of(precision: str, part: str, shape: Shape, seconds: float) -> float:
    """Seconds of the library's way over those of the product, on the CPU."""
    acts = ways(TYPES[precision], part, shape)
    with torch.no_grad():
        found = race(acts, seconds)
    return found["library"] / found["product"]


def ways(dtype: torch.dtype, part: str, shape: Shape) -> dict[str, Callable[[], Tensor]]:
    """Both ways to compute ``part`` of a convolution: that of the library and the matrix product."""
    size, stride, padding = shape.side * shape.stride, (shape.stride, shape.stride), (1, 1)

    def ones(*sizes: int) -> Tensor:
        return torch.ones(sizes, dtype=dtype).to(memory_format=torch.channels_last)

    images, weight = ones(shape.batch, shape.channels, size, size), ones(shape.outputs, shape.channels, 3, 3)
    gradient = ones(shape.batch, shape.outputs, shape.side, shape.side)

    def library(*needed: bool) -> Tensor:
        return torch.ops.aten.convolution_backward(
            gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), 1, (*needed, False)
        )[0 if needed[0] else 1]

    if part == "output":
        return {
            "library": lambda: torch.nn.functional.conv2d(images, weight, None, stride, padding),
            "product": lambda: output(images, weight, stride, padding),
        }
    if part == "to_images":
        return {
            "library": lambda: library(True, False),
            "product": lambda: image_gradient(gradient, weight, images.shape, stride, padding),
        }
    return {
        "library": lambda: library(False, True),
        "product": lambda: weight_gradient(gradient, images, weight.shape, stride, padding),
    }


def _flat(small_maps: SmallMaps) -> dict[str, float]:
    return {
        f"{part} {name}": number
        for part, limits in dataclasses.asdict(small_maps).items()
        for name, number in limits.items()
    }


def _of_flat(numbers: dict[str, float]) -> SmallMaps:
    parts = dataclasses.asdict(SmallMaps())
    return SmallMaps(
        **{part: Limits(**{name: int(numbers[f"{part} {name}"]) for name in parts[part]}) for part in parts}
    )
