"""The shape of every method: a module that holds the backbone and turns a batch into a dict of named losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone
from mixskd.config.build import make_config
from mixskd.data.needs import DataNeeds
from mixskd.errors import UserError
from mixskd.methods.hooks import Hooks
from mixskd.methods.parts.labels import check_call
from mixskd.methods.parts.mixing import Mix, mixes_in

# Where the costs of the methods are counted: 100 classes for the first and third, 17 for the others.
NETWORKS = ("WRN-16-2 at 32 px", "ResNet-18 at 128 px", "ResNet-50 at 224 px", "EfficientNet-Lite0 at 128 px")


@dataclasses.dataclass(frozen=True)
class About:
    """What ``mixskd list methods`` and the method's page say of it.

    Args:
        summary: one sentence.
        compute: the operations of an update divided by those of the baseline, for the first of ``NETWORKS``.
        images: how many go through the network for each original.
        maps: what is kept of an update's forward pass for its backward pass, in bytes, divided by the same of the
            baseline; for the first of ``NETWORKS``.
        keeps: what stays in memory besides the network during training.
        other_compute: ``compute`` for the other ``NETWORKS``; empty where it is the same.
        other_maps: ``maps`` for the other ``NETWORKS``; empty where it is the same.
    """

    summary: str
    compute: float = 1
    images: int = 1
    maps: float = 1
    keeps: str = ""
    other_compute: tuple[float, ...] = ()
    other_maps: tuple[float, ...] = ()

    @property
    def cost(self) -> str:
        """Time, images and memory in words."""
        images = "1 image goes" if self.images == 1 else f"{self.images} images go"
        return (
            f"operations: {_times(self.compute, self.other_compute)}; {images} through the network for each original; "
            f"feature maps in memory: {_times(self.maps, self.other_maps)}"
            + (f"; also in memory: {self.keeps}" if self.keeps else "")
        )

    def compute_on(self, network: str) -> float:
        """``compute`` for one of ``NETWORKS``."""
        return dict(zip(NETWORKS, (self.compute, *self.other_compute), strict=False)).get(network, self.compute)


def _times(first: float, others: tuple[float, ...]) -> str:
    """How many times the baseline: for the first network, then the least and the most of all."""
    if not others:
        return "the same as the baseline" if first == 1 else f"{first:g} times the baseline"
    low, high = (round(end(first, *others), 1) for end in (min, max))
    network = NETWORKS[0].partition(" ")[0]
    return f"{round(first, 1):g} times the baseline on {network} ({low:g} to {high:g} times by network)"


class Method(Hooks, nn.Module):
    """A training objective round a ``backbone``; deploying is taking ``method.backbone`` out.

    ``Method(backbone, temperature=4.0)`` overrides single hyper-parameters of ``Config``, ``Method(backbone, config)``
    gives them all. It never touches a device, an optimizer or a file.
    """

    Config: ClassVar[type]
    about: ClassVar[About | None] = None
    # How the classifier is trained whose run the option ``teacher`` names; None for a method without that option.
    taught_by: ClassVar[str | None] = None

    def __init__(self, backbone: StagedBackbone, config: Any = None, **options: Any) -> None:
        super().__init__()
        if not isinstance(backbone, StagedBackbone):
            raise UserError(
                f"a method needs a staged backbone, not {type(backbone).__name__}; "
                "make one with mixskd.build_backbone(name, num_classes)"
            )
        if config is not None and options:
            config = dataclasses.replace(config, **options)
        self.config = make_config(self.Config, options) if config is None else config
        self.backbone = backbone
        self.register_forward_pre_hook(check_call, with_kwargs=True)
        self.build()

    def build(self) -> None:
        """Create what the method attaches to ``self.backbone``."""

    @property
    def needs(self) -> DataNeeds:
        """What the loader must supply beside images and labels."""
        return DataNeeds()

    def prepare(self, num_images: int, load: Callable[[str], nn.Module]) -> None:
        """Create what depends on the number of training images or on a trained classifier, which ``load`` reads.

        The trainer calls it once, before it makes the optimizer.
        """

    def prepare_batch(self, batch_size: int) -> None:
        """Create what depends on the number of images of an update, of all processes together. Called right after
        ``prepare``.
        """

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """The random numbers of one step, as a tuple of tensors on the images' device, so that ``forward`` is pure."""
        return None

    def image_mixes(self, draws: Any) -> list[Mix]:
        """The mixes among ``draws`` that ``forward`` applies to images, and not to feature maps alone."""
        return list(mixes_in(draws))

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        """The logits ``B x N`` of every classifier that is trained, ``backbone`` among them, by name."""
        return {"backbone": self.backbone(images)}

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        """The losses of a batch: ``images`` ``B x C x H x W``, ``labels`` ``B`` -> ``loss``, ``output``, every term.

        ``output`` is the backbone's logits ``B x N``; the other values are scalars. Without ``draws`` it draws itself.
        ``extra`` is what ``needs`` asks for, under the names given there. The call ``method(images, labels)`` raises
        UserError for labels that are not class indices.
        """
        raise NotImplementedError
