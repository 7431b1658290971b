"""The settings of a detector and of its data: the hyper-parameters of ``cascade_rcnn`` and ``faster_rcnn``."""

from __future__ import annotations

from dataclasses import dataclass

from mixskd.errors import UserError, check_positive
from mixskd.tasks.transfer import TransferConfig


@dataclass(frozen=True)
class DetectorConfig(TransferConfig):
    """The defaults are those of MixSKD's Table 3.

    Args:
        channels: of the feature pyramid's maps.
        hidden: width of the fully connected layers of the RoI heads.
        rois: regions per image (and stage) that the RoI heads learn from.
        proposals: of the RPN per image in training, and half as many at test.
        frozen: keep the stem, the first stage and the norms' statistics as they were trained; if not given, for a
            backbone that starts from weights, since random ones must be trained.
        short: the short side of the images in pixels; of several values one is drawn per image, and the largest is
            taken at test.
        long: the largest long side.
        empty_images: train on images without objects too.
    """

    channels: int = 256
    hidden: int = 1024
    rois: int = 512
    proposals: int = 2000
    frozen: bool | None = None
    short: tuple[int, ...] = (800,)
    long: int = 1333
    empty_images: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "hidden", "rois", "proposals", "long"):
            check_positive(**{f"method.{name}": getattr(self, name)})
        if not self.short or min(self.short) < 32:
            raise UserError(f"method.short must be one or more sizes of 32 pixels or above, not {list(self.short)}")
        if max(self.short) > self.long:
            raise UserError(f"method.long {self.long} is smaller than the short side {max(self.short)}")
