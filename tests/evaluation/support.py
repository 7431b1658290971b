"""A small classifier and batches of random images for all tests of suites."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixskd.evaluation.base import Context

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Toy(nn.Module):
    """A fp32 net of two convolutions that has the head of a backbone."""

    def __init__(self, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 8, 3, stride=2), nn.Tanh())
        self.head = nn.Linear(8, classes)
        self.head.weight.data.mul_(8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


class Fixed(nn.Module):
    """Logits that are given: image ``i`` holds the number i in its first value."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x[:, 0, 0, 0].round().long()]


def numbered(labels: Tensor, batch: int = 7) -> list[tuple[Tensor, Tensor]]:
    """Batches for :class:`Fixed`."""
    images = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return list(zip(images.split(batch), labels.split(batch), strict=True))


def pixels(number: int = 24, size: int = 8, seed: int = 1) -> Tensor:
    """Random pixels in 0 to 1."""
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batches(number: int = 24, classes: int = 4, batch: int = 10, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Normalised random images, half of them labelled as the toy sees them, so that it is neither right nor wrong."""
    x = (pixels(number, seed=seed) - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    with torch.no_grad():
        labels = Toy(classes)(x).argmax(1)
    labels[::3] = (labels[::3] + 1) % classes
    return list(zip(x.split(batch), labels.split(batch), strict=True))


def context(**values: object) -> Context:
    """A context of the CPU with the normalisation of :func:`batches`."""
    return Context(**{"device": torch.device("cpu"), "mean": MEAN, "std": STD, **values})  # type: ignore[arg-type]


def whole(data: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All images and labels."""
    images, labels = zip(*data, strict=True)
    return torch.cat(images), torch.cat(labels)
