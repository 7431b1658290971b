"""Online label smoothing (Zhang et al., IEEE TIP 2021)."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from mixskd.config.types import Settings, Share
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.losses import as_probabilities, full_precision, weighted_sum
from mixskd.runtime.distributed import gather_batch


@dataclass(frozen=True)
class OLSConfig(Settings):
    """As the authors' code for CIFAR-100.

    Args:
        alpha: the weight of the hard labels; the soft labels have 1 - alpha.
        ceiling: a class whose soft label has an entry of this size or more keeps it to the end; 1 switches this off.
            The authors use 0.88 for fine-grained classes.
    """

    alpha: Share = 0.5
    ceiling: Annotated[float, Meta(gt=0, le=1)] = 1.0


class OLS(Method):
    """L = a CE(f(x), y) + (1 - a) CE(f(x), S[y]); S[y] is the mean prediction of the epoch before on images of class y.

    The mean is over the images that were classified correctly. Buffers in fp32: ``soft`` (S) and ``sums``, both
    ``N x N``, and ``counts`` (``N``). They are the same on every process. Outside mixskd's trainer, call
    :meth:`end_epoch` after each epoch.
    """

    Config = OLSConfig
    soft_labels = False
    config: OLSConfig
    about = About(
        "The soft label of a class is the mean of its correct predictions in the epoch before.",
        keeps="two numbers for each pair of classes",
    )
    soft: Tensor
    sums: Tensor
    counts: Tensor

    def build(self) -> None:
        classes = self.backbone.num_classes
        self.register_buffer("soft", torch.full((classes, classes), 1 / classes))
        self.register_buffer("sums", torch.zeros(classes, classes))
        self.register_buffer("counts", torch.zeros(classes))

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits, alpha = self.backbone(images), self.config.alpha
        cls, soft = self.ce(logits, labels), self.ce(logits, self.soft[labels])
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            sums, counts = correct_predictions(gather_batch(full_precision(logits)), gather_batch(labels))
            self.sums += sums
            self.counts += counts
        return {"output": logits, **weighted_sum(cls=(alpha, cls), soft=(1 - alpha, soft))}

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Make the soft labels of the next epoch, and start new sums."""
        self.soft.copy_(soft_labels_of_epoch(self.soft, self.sums, self.counts, self.config.ceiling))
        self.sums.zero_()
        self.counts.zero_()


def correct_predictions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each class, the sum of the softmax outputs of its correctly classified images, and their number.

    ``logits`` ``B x N`` and ``labels`` ``B`` -> ``N x N``, its rows are the classes, and ``N``.
    """
    hits = as_probabilities(labels, logits) * (logits.argmax(1) == labels)[:, None]
    return hits.t() @ logits.softmax(1), hits.sum(0)  # a product: adding rows by index has no fixed order on a GPU


def soft_labels_of_epoch(before: Tensor, sums: Tensor, counts: Tensor, ceiling: float = 1.0) -> Tensor:
    """The rows of ``sums`` (``N x N``) over ``counts`` (``N``), uniform for a class that was never predicted correctly.

    A row of ``before`` with an entry of ``ceiling`` or more stays, if ``ceiling`` is below 1 and its count above 0.
    """
    seen = counts[:, None] > 0
    means = torch.where(seen, sums / counts[:, None].clamp(min=1), 1 / len(sums))
    if ceiling == 1:
        return means
    return torch.where(seen & (before.amax(1, keepdim=True) >= ceiling), before, means)
