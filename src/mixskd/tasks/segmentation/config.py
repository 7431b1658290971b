"""The settings of a segmentation network and of its data: the hyper-parameters of ``deeplabv3``."""

from __future__ import annotations

from dataclasses import dataclass

from mixskd.errors import UserError, check_choice, check_not_negative
from mixskd.tasks.transfer import TransferConfig

HEADS = ("paper", "torchvision")


@dataclass(frozen=True)
class DeepLabConfig(TransferConfig):
    """The defaults are those of MixSKD's Table 3.

    Args:
        output_stride: 8, or 16 at a third of the cost or less.
        head: ``paper`` (512 channels, and dropout before the classifier) or ``torchvision`` (256, without), which has
            the keys of torchvision's published weights.
        aux: weight of the auxiliary head's loss, on the third stage; 0 for no such head.
        crop: height and width of the training crops, in pixels.
        scales: by one of which each training image is resized before the crop.
        colours: ``rgb``, normalised as the backbone was trained, or ``bgr`` less the mean, as the released code.
        kind: of the data: ``voc``, ``ade20k``, ``coco_stuff``, ``camvid``, ``folders``, or ``auto`` to tell by its
            folders.
        stuff_classes: of COCO-Stuff: the 171 that occur, or its 182 raw values, as in the released code.
        check: read every mask before training.
    """

    output_stride: int = 8
    head: str = "paper"
    aux: float = 0.4
    crop: int = 512
    scales: tuple[float, ...] = tuple(round(0.5 + 0.1 * k, 1) for k in range(16))
    colours: str = "rgb"
    kind: str = "auto"
    stuff_classes: int = 171
    check: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_stride not in (8, 16, 32):
            raise UserError(f"method.output_stride must be 8, 16 or 32, not {self.output_stride}")
        check_choice("method.head", self.head, HEADS)
        check_choice("method.colours", self.colours, ("rgb", "bgr"))
        check_not_negative(**{"method.aux": self.aux})
        if self.crop < 32:
            raise UserError(f"method.crop must be 32 pixels or more, not {self.crop}")
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"method.scales must be one or more numbers above 0, not {list(self.scales)}")
