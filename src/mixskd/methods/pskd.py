"""PS-KD: Self-Knowledge Distillation with Progressive Refinement of Targets (Kim et al., ICCV 2021)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.config.types import Settings, Share
from mixskd.data.needs import DataNeeds, take
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import as_probabilities, full_precision
from mixskd.methods.parts.per_image_tables import new_table, read_rows
from mixskd.runtime.distributed import gather_batch


@dataclass(frozen=True)
class PSKDConfig(Settings):
    """As the authors' code.

    Args:
        alpha: the weight of past predictions in the last epoch; it grows linearly from 0.
    """

    alpha: Share = 0.8


class PSKD(Method):
    """L = CE(f(x), (1 - a_t) y + a_t p_past(x)), a_t = alpha t / E; p_past is the image's prediction an epoch ago.

    The predictions of all images are the buffer ``past`` (``n x N``, fp32), the same on every process: 20 MB for
    CIFAR-100, 5 GB for ImageNet. An image not yet seen has a row of zeros there, and its label as target.
    """

    Config = PSKDConfig
    config: PSKDConfig
    about = About(
        "An image's target is partly its own prediction of the epoch before.", keeps="the predictions of all images"
    )
    past: Tensor

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(indices=True, progress=True)

    def build(self) -> None:
        self.register_buffer("past", torch.zeros(0, self.backbone.num_classes))

    def prepare(self, num_images: int, load: Callable[[str], nn.Module]) -> None:
        self.make_room(num_images)

    def make_room(self, num_images: int) -> None:
        """Forget all predictions; expect the indices 0 to ``num_images`` - 1."""
        self.past = new_table(num_images, self.backbone.num_classes, self.past)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        if not len(self.past):
            raise UserError("pskd has no room for past predictions yet: call make_room(number of images) first")
        logits, indices = self.backbone(images), take(extra, "indices")
        alpha = self.config.alpha * take(extra, "progress")
        loss = pskd_loss(logits, labels, read_rows(self.past, indices), alpha=alpha, ce=self.ce)
        now = full_precision(logits.detach()).softmax(1).to(self.past.dtype)
        self.past[gather_batch(indices)] = gather_batch(now)
        return {"loss": loss, "output": logits}


def pskd_loss(
    logits: Tensor, labels: Tensor, past: Tensor, *, alpha: float | Tensor, ce: CrossEntropy = PLAIN
) -> Tensor:
    """Cross-entropy with (1 - alpha) y + alpha p_past, from logits and past probabilities ``B x N``.

    A row of zeros in ``past`` is missing; the label replaces it.
    """
    log_p = ce.log_p(logits)
    target, past = as_probabilities(labels, log_p), past.to(log_p.dtype)
    past = torch.where(past.sum(1, keepdim=True) > 0, past, target)
    return -(((1 - alpha) * target + alpha * past) * log_p).sum(1).mean()
