"""Up to which maps the weight gradient by a matrix product is the faster one on this processor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch

from mixskd.training.convolution import Limits, weight_gradient
from mixskd.training.measurements import BUDGET, race, remembered

SECONDS = BUDGET / 3

# How much faster the product must be, alone, to be taken. With a stride its windows go through the memory, which costs
# more within a step: 1.46 times alone gained nothing there, 1.8 times did (benchmarks/README.md).
PLAIN_GAIN, STRIDED_GAIN = 1.05, 1.5


@dataclasses.dataclass(frozen=True)
class Shape:
    """A 3x3 convolution of ``batch`` maps to ``side x side`` positions, of ``channels`` to ``outputs`` channels."""

    batch: int
    channels: int
    outputs: int
    side: int
    stride: int = 1


# Each some 2 GFLOP, so that a call takes some milliseconds.
PLAIN = {side: Shape(batch, 256, 256, side) for side, batch in ((4, 128), (8, 32))}
STRIDED = {
    channels: Shape(batch, channels, 2 * channels, 8, 2) for channels, batch in ((64, 128), (128, 64), (256, 16))
}


def limits_here() -> Limits:
    """The limits for this processor, measured within some ``SECONDS`` or at an earlier start; else those of others."""
    found = remembered("bf16 weight gradients", lambda: dataclasses.asdict(measure_limits()))
    names = dataclasses.asdict(Limits()).keys()
    return Limits(**{name: int(found[name]) for name in names}) if found and found.keys() >= names else Limits()


def measure_limits(gain: Callable[[Shape, float], float] | None = None, seconds: float = SECONDS) -> Limits:
    """The limits by ``gain``: how many times faster the product is for a shape, found within some seconds.

    A kind of convolution for which no time is left keeps the limits that other processors had.
    """
    end, turn, limits = time.perf_counter() + seconds, seconds / (len(PLAIN) + len(STRIDED) + 1), Limits()
    took = [turn]

    def ask(shape: Shape) -> float | None:
        """The gain for ``shape``; None where it would be too late if it took as long as the slowest so far."""
        begun = time.perf_counter()
        if begun + max(took) > end:
            return None
        found = (gain or gain_of)(shape, turn)
        took.append(time.perf_counter() - begun)
        return found

    small = 0
    for side, shape in PLAIN.items():
        if (found := ask(shape)) is None:
            return limits
        if found < PLAIN_GAIN:
            break
        small = side * side
    limits = dataclasses.replace(limits, small_map=small)

    least = 0
    for channels, shape in sorted(STRIDED.items(), reverse=True):
        if (found := ask(shape)) is None:
            return limits
        if found < STRIDED_GAIN:
            break
        least = channels
    if not least:
        return dataclasses.replace(limits, strided_map=small)
    found = ask(dataclasses.replace(STRIDED[least], side=16, batch=max(STRIDED[least].batch // 4, 1)))
    side = 16 if found is None or found >= STRIDED_GAIN else 8
    return dataclasses.replace(limits, strided_map=max(side * side, small), strided_channels=least)


def gain_of(shape: Shape, seconds: float) -> float:
    """Seconds of the library's weight gradient over those of the product, in bf16 on the CPU."""
    size, stride = shape.side * shape.stride, (shape.stride, shape.stride)
    layout = torch.channels_last
    images = torch.ones(shape.batch, shape.channels, size, size, dtype=torch.bfloat16).to(memory_format=layout)
    gradient = images.new_ones(shape.batch, shape.outputs, shape.side, shape.side).to(memory_format=layout)
    weight = images.new_ones(shape.outputs, shape.channels, 3, 3).to(memory_format=layout)

    def library() -> None:
        torch.ops.aten.convolution_backward(
            gradient, images, weight, None, stride, (1, 1), (1, 1), False, (0, 0), 1, (False, True, False)
        )

    def product() -> None:
        weight_gradient(gradient, images, weight.shape, stride, (1, 1))

    with torch.no_grad():
        found = race({"library": library, "product": product}, seconds)
    return found["library"] / found["product"]
