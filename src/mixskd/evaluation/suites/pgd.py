"""The suite ``pgd``: accuracy under projected gradient descent within an L-infinity ball (Madry et al., 2018)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixskd.config.types import Count, Positive, Settings, WholeNumber
from mixskd.evaluation.attacks import AttackResult, Epsilons, Space, SpaceName, loss_gradient
from mixskd.evaluation.base import Batches, Context, percent, random_choice, report, selected


@dataclass(frozen=True)
class Pgd(Settings, prefix="pgd."):
    """Several signed steps, each followed by a projection into the ball of radius epsilon; white box, true label.

    Args:
        epsilons: the radii, in units of the space.
        steps: the number of gradient steps.
        relative_step: the size of a step, as a share of epsilon.
        random_start: start at a uniformly random point of the ball, not at the image.
        space: ``pixel`` (values 0 to 1, clipped there) or ``normalised``.
        images: attack this many images, the first ones of a fixed random order; 0 for all.
    """

    name: ClassVar[str] = "pgd"
    about: ClassVar[str] = "top-1 under projected gradient descent, with the clean accuracy beside it"
    Result: ClassVar[type] = AttackResult

    epsilons: Epsilons = (1e-3, 1e-2)
    steps: Count = 10
    relative_step: Positive = 0.25
    random_start: bool = True
    space: SpaceName = "pixel"
    images: WholeNumber = 1000

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``clean_top1`` of the attacked images, and for each epsilon ``top1``, in per cent."""
        space = Space.of(self.space, context)
        generator = context.generator()
        outputs = context.outputs(model, data, 0, 2)
        chosen = random_choice(len(outputs.labels), self.images, context.generator())
        clean = (outputs.predictions == outputs.labels)[chosen].double().mean()
        count = 0
        hits = [0] * len(self.epsilons)
        for images, labels in selected(context.batches(data, 1, 2), chosen):
            noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
            for index, epsilon in enumerate(self.epsilons):
                attacked = self.attack(model, images, labels, epsilon, space, noise if self.random_start else None)
                with torch.inference_mode():
                    hits[index] += int((model(attacked).argmax(1) == labels).sum())
            count += len(labels)
        attacks = [{"epsilon": e, "top1": percent(h / count)} for e, h in zip(self.epsilons, hits, strict=True)]
        last = attacks[-1]
        return report(
            self, context, images=count, headline=(f"top1 at {last['epsilon']:g}", last["top1"]),
            protocol="L-infinity projected gradient descent on the cross-entropy, evaluation mode, true label",
            clean_top1=percent(clean), attacks=attacks,
        )  # fmt: skip

    def attack(
        self, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, space: Space, noise: Tensor | None
    ) -> Tensor:
        """Attacked images, normalised; ``noise`` in -1 to 1 gives the start within the ball."""
        centre = space.enter(images)
        moved = centre if noise is None else space.clip(centre + epsilon * noise)
        for _ in range(self.steps):
            gradient, _ = loss_gradient(model, space.leave(moved), labels)
            moved = moved + self.relative_step * epsilon * gradient.sign()
            moved = space.clip(torch.minimum(torch.maximum(moved, centre - epsilon), centre + epsilon))
        return space.leave(moved)
