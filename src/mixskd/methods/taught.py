"""What the methods share that learn from a trained network."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mixskd.errors import UserError
from mixskd.methods.base import Method


class TaughtMethod(Method):
    """A method with a frozen ``teacher`` in evaluation mode, which the option ``teacher`` names."""

    taught_by = "baseline"
    name: ClassVar[str]  # as messages call the method
    config: Any

    def build(self) -> None:
        self.teacher: nn.Module | None = None

    def prepare(self, num_images: int, load: Callable[[str], nn.Module]) -> None:
        if not self.config.teacher:
            raise UserError(f"{self.name} needs a trained teacher: name a baseline's run folder with --method.teacher")
        self.set_teacher(load(self.config.teacher))

    def set_teacher(self, teacher: nn.Module) -> None:
        """Distil from ``teacher``, a classifier of the same classes, which takes the student's normalised images."""
        if getattr(teacher, "num_classes", self.backbone.num_classes) != self.backbone.num_classes:
            raise UserError("the teacher has another number of classes than the network that it teaches")
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """The teacher's logits, ``B x N``. Raises UserError if there is no teacher yet."""
        if self.teacher is None:
            raise UserError(f"{self.name} has no teacher yet: call set_teacher(classifier) first")
        logits: Tensor = self.teacher(images)
        return logits
