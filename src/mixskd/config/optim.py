"""The settings of the optimizer and its schedule. It imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from mixskd.config.types import BelowOne, NotNegative, Positive, Settings, WholeNumber

# The usual values of each optimizer; those of sgd, also the defaults below, are the paper's for CIFAR-100.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4, "nesterov": True, "decay_norms": True},
    "adamw": {"lr": 1e-3, "weight_decay": 0.05, "nesterov": False, "decay_norms": False},
}
OF_AN_OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "betas", "decay_norms")


NAMED = Meta(pattern="^(sgd|adamw|timm/.*)$", description="sgd, adamw or timm/NAME", examples=["sgd", "adamw"])


@dataclass(frozen=True)
class OptimConfig(Settings, prefix="optim."):
    """The optimizer and its schedule. The defaults are those of ``sgd``; in a configuration, another optimizer has its
    own usual values.

    Args:
        name: ``sgd``, ``adamw``, or ``timm/NAME`` for an optimizer of timm.
        lr: the learning rate after warm-up; 0.1 for ``sgd``, 1e-3 for others.
        momentum: the momentum of SGD, and of the optimizers of timm that have one.
        nesterov: use Nesterov momentum in SGD; the released code does so for CIFAR, not for ImageNet.
        betas: the betas of AdamW.
        weight_decay: the weight decay: 5e-4 for ``sgd`` on CIFAR (1e-4 for fine-grained sets and ImageNet), 0.05 for
            others.
        decay_norms: whether norms, biases and embeddings decay too; yes for ``sgd``, as published, no for others.
        layer_decay: the rate of each stage is the rate of the next stage times this number; 1 for the same rate
            everywhere.
        fresh_lr_scale: if the network starts from weights, the rate of all parts without such weights is multiplied by
            this. These are the classifier and the parts that are used only in training.
        head_start: how the classifier begins: ``random``, or as the ``probe``, the logistic regression on the frozen
            features (LP-FT, Kumar et al., 2022); needs weights. Branches, which begin as copies of the network, get the
            same classifier.
        freeze: the number of first stages that are not trained; their batch norms stay in evaluation mode.
        norms: whether batch norms ``train``, or keep the running statistics that they came with (``frozen``; needs
            weights). Their scales and shifts are trained in either case.
        schedule: ``step``, ``cosine`` or ``poly`` (the one for segmentation).
        cosine_by: whether ``cosine`` falls by ``epoch``, as published, or by ``step``.
        warmup_epochs: epochs of linear warm-up; the rate rises with every iteration.
        milestones: epochs, counted from 0, at which ``step`` multiplies the rate by ``decay``.
        decay: the factor of ``step``.
        power: the power of ``poly``, which multiplies the rate by (1 - share of the steps taken) to this power.
        clip_norm: the largest norm of the gradient over all parameters; a gradient above it is scaled down; 0 for no
            limit, as published.
        ema: decay of a moving average of the weights; the average is evaluated and deployed; 0 for none.
    """

    name: Annotated[str, NAMED] = "sgd"
    lr: Positive = 0.1
    momentum: NotNegative = 0.9
    nesterov: bool = True
    betas: Annotated[tuple[BelowOne, ...], Meta(min_length=2, max_length=2)] = (0.9, 0.999)
    weight_decay: NotNegative = 5e-4
    decay_norms: bool = True
    layer_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    fresh_lr_scale: Positive = 1.0
    head_start: Literal["random", "probe"] = "random"
    freeze: WholeNumber = 0
    norms: Literal["train", "frozen"] = "train"
    schedule: Literal["step", "cosine", "poly"] = "step"
    cosine_by: Literal["epoch", "step"] = "epoch"
    warmup_epochs: NotNegative = 5
    milestones: tuple[int, ...] = (105, 155)
    decay: Positive = 0.1
    power: Positive = 0.9
    clip_norm: NotNegative = 0.0
    ema: BelowOne = 0.0

    @property
    def adam_betas(self) -> tuple[float, float]:
        return self.betas[0], self.betas[1]
