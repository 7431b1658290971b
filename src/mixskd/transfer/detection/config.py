"""The settings of a detector and of its data: the hyper-parameters of ``cascade_rcnn`` and ``faster_rcnn``."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mixskd.config.types import Count
from mixskd.errors import UserError
from mixskd.transfer.config import TransferConfig


@dataclass(frozen=True)
class DetectorConfig(TransferConfig):
    """The defaults are those of MixSKD's Table 3.

    Args:
        channels: the channels of the feature pyramid's maps.
        hidden: the width of the fully connected layers of the RoI heads.
        rois: the regions per image (and stage) that the RoI heads learn from.
        proposals: the proposals of the RPN per image in training; half as many are used at test.
        frozen: keep the stem, the first stage and the norms' statistics as they were trained. If not given, this is
            done for a backbone that starts from weights, since random ones must be trained.
        short: the short side of the images in pixels; of several values, one is drawn per image, and the largest is
            used at test.
        long: the largest allowed long side.
        empty_images: also train on images without objects.
        rpn_border: anchors of the RPN that reach more than this number of pixels beyond the image are not trained on;
            -1 trains on all of them, as torchvision does.
    """

    channels: Count = 256
    hidden: Count = 1024
    rois: Count = 512
    proposals: Count = 2000
    frozen: bool | None = None
    short: Annotated[tuple[Annotated[int, Meta(ge=32)], ...], Meta(min_length=1)] = (800,)
    long: Count = 1333
    empty_images: bool = True
    rpn_border: Annotated[int, Meta(ge=-1)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.short) > self.long:
            raise UserError(f"method.long {self.long} is smaller than the short side {max(self.short)}")
