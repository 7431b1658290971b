"""Knowledge distillation (Hinton et al., 2015): a trained network of any kind teaches."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixskd.config.types import Positive, Settings, Share
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import weighted_sum
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
    several_labels = True
    about = About("A trained network of any kind teaches.", compute=1.33, images=2, keeps="the teacher")
    name = "kd"
    config: KDConfig

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, logits = self.config, self.backbone(images)
        return {"output": logits, **kd_loss(logits, self.teach(images), labels, c.alpha, c.temperature, ce=self.ce)}


def kd_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float, ce: CrossEntropy = PLAIN
) -> dict[str, Tensor]:
    """``loss`` = (1 - alpha) ``cls`` + alpha ``distillation``, from two logits ``B x N`` (Hinton et al., 2015)."""
    return weighted_sum(
        cls=(1 - alpha, ce(logits, labels)),
        distillation=(alpha, ce.divergence(student=logits, teacher=teacher_logits, temperature=temperature)),
    )
