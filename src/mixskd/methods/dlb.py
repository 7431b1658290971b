"""DLB: self-distillation from the last mini-batch (Shen et al., CVPR 2022)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixskd.config.types import NotNegative, Positive, Settings
from mixskd.data.needs import DataNeeds, take
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import kl_divergence, weighted_sum
from mixskd.methods.parts.per_image_tables import read_rows
from mixskd.runtime.distributed import gather_batch


@dataclass(frozen=True)
class DLBConfig(Settings):
    """The authors' code asks for both and gives no value.

    Args:
        temperature: the temperature T.
        alpha: the weight of the divergence.
    """

    temperature: Positive = 3.0
    alpha: NotNegative = 1.0


class DLB(Method):
    """L = CE over f(x_t) and f(x'_{t-1}) + alpha KL_T(f_t(x'_{t-1}) <- f_{t-1}(x_{t-1})), x' augmented anew.

    The logits and labels of the last batch are buffers with a row for each slot of the whole batch, the same on every
    process. A row with the label -1 is empty: the first step of a run is plain cross-entropy.
    """

    Config = DLBConfig
    config: DLBConfig
    about = About(
        "Half of each step's images come from the step before. Their earlier predictions teach them.",
        compute=2,
        images=2,
        maps=2,
        keeps="the logits and labels of one batch",
    )
    soft_labels = False
    past: Tensor
    past_labels: Tensor

    @property
    def needs(self) -> DataNeeds:
        return DataNeeds(partners=1, partners_from="previous", slots=True)

    def build(self) -> None:
        self.register_buffer("past", torch.zeros(0, self.backbone.num_classes))
        self.register_buffer("past_labels", torch.zeros(0, dtype=torch.long))

    def prepare_batch(self, batch_size: int) -> None:
        self.past = self.past.new_zeros(batch_size, self.backbone.num_classes)
        self.past_labels = self.past_labels.new_full((batch_size,), -1)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        if not len(self.past):
            raise UserError("dlb has no room for the last batch yet: call prepare_batch(images in a batch) first")
        c, previous, slots = self.config, take(extra, "partners")[:, 0], take(extra, "slots")
        logits, again = self.backbone(images), self.backbone(previous)
        past, past_labels = read_rows(self.past, slots), read_rows(self.past_labels, slots)
        terms = dlb_loss(logits, again, past, labels, past_labels, temperature=c.temperature, alpha=c.alpha, ce=self.ce)
        with torch.no_grad():
            everywhere = gather_batch(slots)
            self.past[everywhere] = gather_batch(logits.detach().to(self.past.dtype))
            self.past_labels[everywhere] = gather_batch(labels)
        return {"output": logits, **terms}


def dlb_loss(
    logits: Tensor, again: Tensor, past: Tensor, labels: Tensor, past_labels: Tensor,
    *, temperature: float, alpha: float, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + alpha ``consistency``, from logits ``B x N``.

    ``logits`` are those of the new images, ``again`` those of the last batch's images, ``past`` those of the last batch
    in its own step. ``cls`` is the cross-entropy of both batches, ``consistency`` the divergence of ``again`` from
    ``past``. A label of -1 in ``past_labels`` marks a missing past.
    """
    known = (past_labels >= 0).to(past.dtype).mean()  # 0 in the first step of a run, then 1
    cls, cls_again = ce(logits, labels), ce(again, past_labels.clamp(min=0))
    consistency = known * kl_divergence(student=again, teacher=past, temperature=temperature)
    return weighted_sum(cls=(1, (cls + known * cls_again) / (1 + known)), consistency=(alpha, consistency))
