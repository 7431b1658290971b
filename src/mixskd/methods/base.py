"""The shape of every method: a module that holds the backbone and turns a batch into named losses."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone
from mixskd.config.build import make_config
from mixskd.data.needs import DataNeeds
from mixskd.errors import UserError
from mixskd.methods.cards import About as About
from mixskd.methods.hooks import Hooks
from mixskd.methods.parts.call_checks import check_call
from mixskd.methods.parts.criteria import CrossEntropy
from mixskd.methods.parts.mixing import Mix, mixes_in

SEVERAL = ("baseline", "label_smoothing", "mixup", "cutmix", "mixup_cutmix", "regmixup", "mixskd", "kd")


class Method(Hooks, nn.Module):
    """A training objective around a ``backbone``. ``method.backbone`` is the classifier to deploy.

    ``method.ce`` is what it minimises on the labels: softmax cross-entropy, unless :meth:`use` gives it another one.

    ``Method(backbone, temperature=4.0)`` sets single hyper-parameters of ``Config``, ``Method(backbone, config)`` all
    of them. A method uses no device, optimizer or file.
    """

    Config: ClassVar[type]
    about: ClassVar[About | None] = None
    # Whether labels may be probabilities, ``B x N``, instead of class indices.
    soft_labels: ClassVar[bool] = True
    # Whether an image may have several labels, ``B x N`` numbers from 0 to 1, under a BinaryCrossEntropy as ``ce``.
    several_labels: ClassVar[bool] = False

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
        self.ce = CrossEntropy()
        self.register_forward_pre_hook(check_call, with_kwargs=True)
        self.build()

    def build(self) -> None:
        """Create what the method attaches to ``self.backbone``."""

    def use(self, ce: CrossEntropy) -> None:
        """Minimise ``ce`` on the labels. Raises UserError if it is for several an image, and the method is not."""
        if ce.several:
            self.check_several()
        self.ce = ce

    @classmethod
    def check_several(cls, name: str = "this method") -> None:
        """Raises UserError, with the ``name`` of the method, if it is for one label an image."""
        if not cls.several_labels:
            raise UserError(f"{name} is for one label an image; with several, train with {', '.join(SEVERAL)}")

    @property
    def needs(self) -> DataNeeds:
        """What the loader must supply beside images and labels."""
        return DataNeeds()

    def prepare(self, num_images: int, load: Callable[[str], nn.Module]) -> None:
        """Create what depends on the number of training images, or on a trained classifier that ``load`` reads.

        Called once, before the optimizer is made.
        """

    def prepare_batch(self, batch_size: int) -> None:
        """Create what depends on the images of an update, counted over all processes. Called after ``prepare``."""

    def image_mixes(self, draws: Any) -> list[Mix]:
        """The mixes among ``draws`` that ``forward`` applies to images, not only to feature maps."""
        return list(mixes_in(draws))

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        """The logits ``B x N`` of every classifier that is trained, by name; ``backbone`` is one of them."""
        return {"backbone": self.backbone(images)}

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, **extra: Tensor) -> dict[str, Tensor]:
        """The losses of a batch: ``loss``, ``output`` and every term of the loss.

        ``images`` are ``B x C x H x W``; ``labels`` are class indices (``B``), or probabilities (``B x N``) if
        ``soft_labels``, or numbers from 0 to 1 (``B x N``) where ``ce`` is for several labels. ``output`` is the
        backbone's logits ``B x N``; all other values are scalars. If ``draws`` is None, the method draws its random
        numbers itself. ``extra`` holds what ``needs`` names. A call
        ``method(images, labels)`` raises UserError for labels that the method cannot use.
        """
        raise NotImplementedError
