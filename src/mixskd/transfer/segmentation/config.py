"""The settings of a segmentation network and of its data: the hyper-parameters of ``deeplabv3``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from mixskd.config.types import NotNegative, Positive
from mixskd.transfer.config import TransferConfig


@dataclass(frozen=True)
class DeepLabConfig(TransferConfig):
    """The defaults are those of MixSKD's Table 3.

    Args:
        output_stride: 8, or 16, which costs a third or less.
        head: ``paper`` (512 channels, and dropout before the classifier) or ``torchvision`` (256, without), which has
            the keys of torchvision's published weights.
        aux: the weight of the auxiliary head's loss, on the third stage; 0 for no such head.
        crop: height and width of the training crops, in pixels.
        scales: the scales; one is drawn for each training image, which is resized by it before the crop.
        colours: ``rgb``, normalised as the backbone was trained, or ``bgr`` less the mean, as the released code.
        kind: the layout of the data: ``voc``, ``ade20k``, ``coco_stuff``, ``camvid``, ``folders``, or ``auto`` to
            find out from its folders.
        stuff_classes: the classes of COCO-Stuff: the 171 that occur, or its 182 raw values, as in the released code.
    """

    output_stride: Literal[8, 16, 32] = 8
    head: Literal["paper", "torchvision"] = "paper"
    aux: NotNegative = 0.4
    crop: Annotated[int, Meta(ge=32)] = 512
    scales: Annotated[tuple[Positive, ...], Meta(min_length=1)] = tuple(round(0.5 + 0.1 * k, 1) for k in range(16))
    colours: Literal["rgb", "bgr"] = "rgb"
    kind: str = "auto"
    stuff_classes: int = 171
