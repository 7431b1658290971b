"""USKD: universal self-knowledge distillation with customised soft labels (Yang et al., ICCV 2023)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from mixskd.backbones.heads import Head
from mixskd.backbones.tokens import average
from mixskd.config.types import BelowOne, NotNegative, Settings
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.criteria import PLAIN, CrossEntropy
from mixskd.methods.parts.losses import full_precision, log_likelihood, weighted_sum
from mixskd.methods.parts.zipf import log_softmax_of_others, ranks, zipf_weights

Ranking = Literal["probability", "released"]


@dataclass(frozen=True)
class USKDConfig(Settings):
    """As the authors' configuration for CIFAR-100.

    Args:
        alpha: the weight of the target term; 0.1 for CIFAR-100, 1 for ImageNet.
        beta: the weight of the non-target term.
        mu: the weight of the weak classifier's cross-entropy; 0.1 for CIFAR-100, 0.005 for ImageNet.
        epsilon: the label smoothing of the weak classifier.
        ranking: ``probability`` ranks the other classes by the sum of both normalised probabilities; ``released`` does
            what the authors' code computes: the sum has log-probabilities of the backbone, and all classes are ranked.
    """

    alpha: NotNegative = 0.1
    beta: NotNegative = 0.1
    mu: NotNegative = 0.1
    epsilon: BelowOne = 0.1
    ranking: Ranking = "probability"


class USKD(Method):
    """L = CE(f) + alpha L_target + beta L_non_target + mu CE_smooth(w), w a classifier on the last stage but one."""

    Config = USKDConfig
    config: USKDConfig
    soft_labels = False
    about = About(
        "Soft labels of two parts: confidence in the own class, ranks for the others.",
        keeps="one linear classifier",
    )

    def build(self) -> None:
        self.backbone.require_stages("uskd")
        channels = self.backbone.stage_channels()
        if len(channels) < 2:
            raise UserError("uskd needs a backbone of two stages or more: its weak classifier uses the last but one")
        self.weak_head = Head(channels[-2], self.backbone.num_classes)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        maps, logits = self.backbone.maps_and_logits(images)
        return {"weak": self.weak_head(average(maps[-2])), "backbone": logits}

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        c, heads = self.config, self.heads(images)
        terms = uskd_loss(
            heads["backbone"], heads["weak"], labels,
            alpha=c.alpha, beta=c.beta, mu=c.mu, epsilon=c.epsilon, ranking=c.ranking, ce=self.ce,
        )  # fmt: skip
        return {"output": heads["backbone"], **terms}


def uskd_loss(
    logits: Tensor, weak: Tensor, labels: Tensor,
    *, alpha: float, beta: float, mu: float, epsilon: float, ranking: Ranking, ce: CrossEntropy = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """``loss`` = ``cls`` + alpha ``target`` + beta ``non_target`` + mu ``weak_cls``, from two logits ``B x N``.

    ``weak`` are the logits of the weak classifier and ``weak_cls`` is its smoothed cross-entropy. ``cls`` is the
    backbone's; ``target`` and ``non_target`` compare its probabilities with the soft labels of the label and of the
    other classes.
    """
    weights = zipf_weights(ranks(rank_scores(logits, weak, labels, ranking)), labels)
    return weighted_sum(
        cls=(1, ce(logits, labels)),
        target=(alpha, target_term(logits, labels)),
        non_target=(beta, -(weights * log_softmax_of_others(logits, labels)).sum(1).mean()),
        weak_cls=(mu, ce(weak, labels, epsilon)),
    )


def target_term(logits: Tensor, labels: Tensor) -> Tensor:
    """-mean P log p, p the probability of ``labels``; the constant P is 1 + p^2 less the batch's mean of p^2."""
    log_p = log_likelihood(F.log_softmax(full_precision(logits), dim=1), labels)
    squared = (2 * log_p.detach()).exp()
    return -((1 + squared - squared.mean()) * log_p).mean()


def rank_scores(logits: Tensor, weak: Tensor, labels: Tensor, ranking: Ranking) -> Tensor:
    """The scores that rank the classes (``B x N``), without gradient, from the logits of both classifiers."""
    z, w = full_precision(logits.detach()), full_precision(weak.detach())
    own = labels[:, None]
    if ranking == "released":
        log_p, q = z.log_softmax(1), w.softmax(1)
        return q / (1 - q.gather(1, own) + 1e-6) + log_p / (1 - log_p.gather(1, own) + 1e-6)
    score = log_softmax_of_others(z, labels).exp() + log_softmax_of_others(w, labels).exp()
    return score.scatter(1, own, -1.0)  # last, so that the other classes have the first ranks
