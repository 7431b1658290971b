"""The suite ``linearity``: how a classifier behaves between two images (MixSKD, Fig. 3b)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from mixskd.config.records import Number
from mixskd.config.types import Settings, Share, WholeNumber
from mixskd.errors import UserError, check_positive
from mixskd.evaluation.base import Batches, Context, percent, report
from mixskd.evaluation.stored_results import SuiteResult

POOL_BYTES = 512 * 2**20
"""Size of a pool of images that are paired with each other; a larger split is read once for each pool."""


class LinearityPoint(Struct, rename={"share": "lambda"}):
    """A point of the curve of ``linearity``, by the share of the first image in the mix."""

    share: Number
    miss_rate: Number
    mass: Number


class LinearityResult(SuiteResult):
    """The stored result."""

    curve: Annotated[list[LinearityPoint], Meta(min_length=1)]


@dataclass(frozen=True)
class Linearity(Settings, prefix="linearity."):
    """The miss rate over lambda: how often the class of ``lambda a + (1 - lambda) b`` is neither that of a nor of b.

    Args:
        lambdas: the shares of the first image.
        pairs: the largest number of pairs; 0 for one per image.
        equal_classes: also use pairs of one class.
    """

    name: ClassVar[str] = "linearity"
    about: ClassVar[str] = "miss rate between pairs of images, and the probability of their two classes"
    Result: ClassVar[type] = LinearityResult

    lambdas: Annotated[tuple[Share, ...], Meta(min_length=1)] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    pairs: WholeNumber = 2000
    equal_classes: bool = False

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``curve``: for each lambda ``miss_rate`` in per cent and ``mass``, the mean p(y_a) + p(y_b).

        Raises UserError if no two images have different classes.
        """
        misses, mass, count = [0.0] * len(self.lambdas), [0.0] * len(self.lambdas), 0
        outputs = context.outputs(model, data, 0, 2)
        labels = outputs.labels
        with torch.inference_mode():
            for a, b, i, j in self.pairs_of(data, labels, context):
                y_a, y_b = labels[i].to(a.device), labels[j].to(a.device)
                both = torch.stack([y_a, y_b], 1)
                for index, weight in enumerate(self.lambdas):
                    if weight in (0, 1):  # an image itself, whose logits are known
                        logits = outputs.logits[i if weight else j].to(a.device)
                    else:
                        logits = model(weight * a + (1 - weight) * b).float()
                    misses[index] += int((logits.argmax(1, keepdim=True) != both).all(1).sum())
                    likely = logits.double().softmax(1).gather(1, both)
                    # A pair of one class has its probability once.
                    likely[:, 1].masked_fill_(y_a == y_b, 0)
                    mass[index] += float(likely.sum())
                count += len(y_a)
        if not count:
            raise UserError("linearity needs images of two or more classes in the split; there are none to pair")
        curve = [
            {"lambda": weight, "miss_rate": percent(missed / count), "mass": held / count}
            for weight, missed, held in zip(self.lambdas, misses, mass, strict=True)
        ]
        middle = min(curve, key=lambda point: abs(point["lambda"] - 0.5))
        return report(
            self, context, images=len(labels), higher_is_better=False,
            headline=(f"miss rate at lambda {middle['lambda']:g}", middle["miss_rate"]),
            protocol="one seeded pairing for all lambdas and models, mixed in the normalised images; a miss is an arg "
            f"max that is neither label; pairs of equal classes are {'kept' if self.equal_classes else 'left out'}",
            number_of_pairs=count, mean_miss_rate=sum(point["miss_rate"] for point in curve) / len(curve), curve=curve,
        )  # fmt: skip

    def pairs_of(
        self, data: Batches, labels: Tensor, context: Context
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Batches of images a and b, on the device, and their places in the split.

        A random order of the split is cut into pools, and each image of a pool gets a random partner in it. The pools'
        size depends on that of an image alone, so that the pairs do not depend on the batch size.
        """
        generator = context.generator()
        first = next(iter(data))[0]
        pool = max(POOL_BYTES // (first[0].numel() * first.element_size()), 2)
        order = torch.randperm(len(labels), generator=generator)[: self.pairs or len(labels)]
        for number, members in enumerate(order.split(pool)):
            a = torch.arange(len(members))
            b = partners(labels[members], generator, equal=self.equal_classes)
            a, b = a[b >= 0], b[b >= 0]
            images = gather(data, members).to(context.device)
            size = len(first)
            for i, j in zip(a.split(size), b.split(size), strict=True):
                yield images[i.to(context.device)], images[j.to(context.device)], members[i], members[j]
            context.progress(0.5 + 0.5 * min((number + 1) * pool / len(order), 1.0))


def partners(labels: Tensor, generator: torch.Generator, *, equal: bool) -> Tensor:
    """For each of ``N`` labels the index of a random other image, of another class unless ``equal``; -1 for none."""
    positions, number = torch.arange(len(labels)), len(labels)
    chosen = torch.full((number,), -1)
    for position in positions.tolist():
        allowed = positions[(positions != position) if equal else (labels != labels[position])]
        if len(allowed):
            chosen[position] = allowed[torch.randint(len(allowed), (), generator=generator)]
    return chosen


def gather(data: Batches, indices: Tensor) -> Tensor:
    """The images at ``indices`` of ``data``, in that order, on the CPU; it holds no others."""
    check_positive(indices=len(indices))
    where = {int(index): row for row, index in enumerate(indices)}
    images: Tensor | None = None
    start = 0
    for batch, _ in data:
        rows = [(where[start + k], k) for k in range(len(batch)) if start + k in where]
        if rows:
            if images is None:
                images = torch.empty(len(indices), *batch.shape[1:], dtype=batch.dtype)
            targets, sources = torch.tensor(rows).T
            images[targets] = batch[sources.to(batch.device)].cpu()
        start += len(batch)
    assert images is not None
    return images
