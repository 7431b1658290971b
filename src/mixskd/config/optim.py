"""The settings of the optimizer and its schedule. It imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from mixskd.config.types import BelowOne, Count, NotNegative, Positive, Settings, WholeNumber

# The usual values of each optimizer; those of sgd, also the defaults below, are the paper's for CIFAR-100.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4, "nesterov": True, "decay_norms": True},
    "adamw": {"lr": 1e-3, "weight_decay": 0.05, "nesterov": False, "decay_norms": False},
}
OF_AN_OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "betas", "decay_norms")
NAMED = Meta(pattern="^(sgd|adamw|timm/.*)$", description="sgd, adamw or timm/NAME", examples=["sgd", "adamw"])


class LabelLoss(NamedTuple):
    """What the cross-entropy of a run needs of :class:`OptimConfig`: the weights of classes, and its form."""

    class_weights: str | dict[str, float] = "none"
    effective_beta: float = 0.999
    logit_adjustment: float = 0.0
    asymmetric: tuple[float, ...] = ()


@dataclass(frozen=True)
class OptimConfig(Settings, prefix="optim."):
    """The optimizer, its schedule, and weights in the loss. The defaults are those of ``sgd``; in a configuration,
    another optimizer has its own usual values.

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
        restarts: epochs, counted from 0, at which the schedule begins anew, as ``--more-epochs`` notes them. Each part
            is the schedule of a run of its own length without warm-up; milestones are scaled to that length. What a
            method changes over a run has its last value after the first restart.
        power: the power of ``poly``, which multiplies the rate by (1 - share of the steps taken) to this power.
        clip_norm: the largest norm of the gradient over all parameters; a gradient above it is scaled down; 0 for no
            limit, as published.
        class_weights: the weight of each class in the cross-entropy: ``none``; ``balanced``, in inverse proportion to
            its training images; ``effective``, to their effective number (Cui et al., 2019); or weights by class, as
            ``{cat: 2, dog: 1}``, 1 for those left out. The first two have a mean of 1 over the training images. Where
            an image may have several labels, this weighs a class where it is present, against 1 where it is absent.
        effective_beta: beta of the effective number (1 - beta^n) / (1 - beta) of n images; at 0 all classes weigh
            alike, near 1 it is ``balanced``.
        logit_adjustment: tau of the logit adjustment (Menon et al., 2021): in training the cross-entropy sees the
            logits plus tau times the logarithm of each class's share of the training images; 1 as published, 0 for
            none.
        asymmetric: the asymmetric loss (Ridnik et al., 2021) where an image may have several labels: the focusing of
            absent labels, that of present labels, and the margin, as ``4,0,0.05``; plain if empty.
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
    restarts: tuple[Count, ...] = ()
    power: Positive = 0.9
    clip_norm: NotNegative = 0.0
    class_weights: Literal["none", "balanced", "effective"] | dict[str, Positive] = "none"
    effective_beta: BelowOne = 0.999
    logit_adjustment: NotNegative = 0.0
    asymmetric: Annotated[tuple[NotNegative, ...], Meta(max_length=3)] = ()
    ema: BelowOne = 0.0
