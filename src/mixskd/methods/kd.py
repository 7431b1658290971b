"""Knowledge distillation (Hinton et al., 2015): a trained network of any kind teaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.base import About
from mixskd.methods.parts.losses import cross_entropy, kl_divergence
from mixskd.methods.taught import TaughtMethod


@dataclass(frozen=True)
class KDConfig(Settings):
    """As the released code of CRD (Tian et al., 2020) for CIFAR-100.

    Args:
        teacher: the folder of a finished run, its model.safetensors, or a network with published weights of the same
            classes: timm/NAME or torchvision/NAME. It sees the images in its own size and normalisation.
        alpha: the share of the teacher; the labels have 1 - alpha.
        temperature: the temperature T.
    """

    teacher: str = ""
    alpha: Share = 0.9
    temperature: Positive = 4.0


class KD(TaughtMethod):
    """L = (1 - a) CE(f(x), y) + a T^2 KL(softmax(teacher(x) / T) || softmax(f(x) / T)); the teacher is frozen."""

    Config = KDConfig
    about = About("A trained network of any kind teaches.", compute=1.33, images=2, keeps="the teacher")
    name = "kd"
    config: KDConfig

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        logits, target = self.backbone(images), self.teach(images)
        cls = cross_entropy(logits, labels)
        distillation = kl_divergence(logits, target, self.config.temperature)
        loss = (1 - self.config.alpha) * cls + self.config.alpha * distillation
        return {"loss": loss, "output": logits, "cls": cls, "distillation": distillation}
