"""Plain training with cross-entropy: what every other method is compared with."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.config.types import Settings
from mixskd.methods.base import Method
from mixskd.methods.cards import About


@dataclass(frozen=True)
class BaselineConfig(Settings):
    """Cross-entropy has no hyper-parameter."""


class Baseline(Method):
    """L = CE(f(x), y)."""

    Config = BaselineConfig
    several_labels = True
    about = About("Plain training with cross-entropy.")

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits = self.backbone(images)
        return {"loss": self.ce(logits, labels), "output": logits}
