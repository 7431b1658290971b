"""The suite ``fgsm``: accuracy under the fast gradient sign method (Goodfellow et al., 2015; MixSKD, Table 5 left)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixskd.config.types import Settings
from mixskd.evaluation.attacks import AttackResult, Epsilons, Space, SpaceName, loss_gradient
from mixskd.evaluation.base import Batches, Context, percent, report


@dataclass(frozen=True)
class Fgsm(Settings, prefix="fgsm."):
    """One step of size epsilon along the sign of the loss gradient, white box, with the true label.

    Args:
        epsilons: the step sizes, in units of the space.
        space: ``pixel`` (values 0 to 1, clipped there) or ``normalised`` (divided by the standard deviation, no clip).
    """

    name: ClassVar[str] = "fgsm"
    about: ClassVar[str] = "top-1 under the fast gradient sign method, with the clean accuracy beside it"
    Result: ClassVar[type] = AttackResult

    epsilons: Epsilons = (1e-4, 1e-3, 1e-2, 1e-1)
    space: SpaceName = "pixel"

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``clean_top1``, and ``attacks``: for each epsilon ``top1`` and ``fooled``, all in per cent.

        ``fooled`` is the share of the correctly classified images that the attack turns into mistakes.
        """
        space = Space.of(self.space, context)
        count, clean = 0, torch.zeros((), device=context.device)
        hits = torch.zeros(len(self.epsilons), device=context.device)
        turned = torch.zeros_like(hits)
        for images, labels in context.batches(data):
            gradient, logits = loss_gradient(model, images, labels)
            right = logits.argmax(1) == labels
            clean += right.sum()
            count += len(labels)
            with torch.inference_mode():
                for index, attacked in enumerate(steps(images, gradient, self.epsilons, space)):
                    still = model(attacked).argmax(1) == labels
                    hits[index] += still.sum()
                    turned[index] += (right & ~still).sum()
        attacks = [
            {"epsilon": epsilon, "top1": percent(hit / count), "fooled": percent(wrong / clean.clamp(min=1))}
            for epsilon, hit, wrong in zip(self.epsilons, hits, turned, strict=True)
        ]
        middle = attacks[len(attacks) // 2]
        return report(
            self, context, images=count, headline=(f"top1 at {middle['epsilon']:g}", middle["top1"]),
            protocol="x + epsilon * sign(gradient of the cross-entropy by x), single step, evaluation mode, true label",
            clean_top1=percent(clean / count), attacks=attacks,
        )  # fmt: skip


def steps(images: Tensor, gradient: Tensor, epsilons: tuple[float, ...], space: Space) -> Iterator[Tensor]:
    """``images`` (normalised) moved by each of ``epsilons`` along the sign of ``gradient``, normalised again."""
    start, direction = space.enter(images), gradient.sign()
    for epsilon in epsilons:
        yield space.leave(space.clip(start + epsilon * direction))
