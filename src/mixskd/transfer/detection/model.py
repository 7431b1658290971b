"""Detectors on a staged backbone, and as methods of the trainer: Cascade R-CNN, and torchvision's Faster R-CNN."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from mixskd.backbones import StagedBackbone
from mixskd.data.needs import DataNeeds
from mixskd.methods.hooks import Hooks
from mixskd.transfer.detection.cascade import CascadeConfig, CascadeHeads, HeightWidth
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.loading import targets_of
from mixskd.transfer.detection.pyramid import Pyramid

RPN_NAMES = {"loss_objectness": "rpn_class", "loss_rpn_box_reg": "rpn_box"}
FASTER_NAMES = {"loss_classifier": "class", "loss_box_reg": "box"}


class FloorMatcher(Matcher):
    """A matcher whose low-quality matches (the best anchor of each box) must still reach the IoU ``floor``."""

    floor = 0.3

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        best = match_quality_matrix.max(dim=1).values
        reached = match_quality_matrix[best >= self.floor]
        if len(reached):
            chosen = torch.where(reached == best[best >= self.floor, None])[1]
            matches[chosen] = all_matches[chosen]


class BorderedRPN(RegionProposalNetwork):
    """torchvision's RPN, in which anchors that reach more than ``border`` pixels beyond the image are not trained on.

    Each target has ``size``, the height and width of its image. A ``border`` of -1 trains on all anchors; an image too
    small for any anchor is treated like that. Source: ``allowed_border`` of MMDetection 2.15.
    """

    border = -1

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 object, 0 background, -1 not used) and matched boxes of all anchors of each image."""
        if self.border < 0:
            return super().assign_targets_to_anchors(anchors, targets)
        labels, boxes = [], []
        for one, target in zip(anchors, targets, strict=True):
            height, width = target["size"].unbind()
            fits = (one[:, :2] >= -self.border).all(1)
            fits &= (one[:, 2] < width + self.border) & (one[:, 3] < height + self.border)
            fits |= ~fits.any()
            (label,), (matched,) = super().assign_targets_to_anchors([one[fits]], [target])
            labels.append(label.new_full((len(one),), -1).masked_scatter_(fits, label))
            boxes.append(torch.zeros_like(one).masked_scatter_(fits[:, None], matched))
        return labels, boxes


def make_rpn(channels: int, proposals: int = 2000, border: int = 0) -> BorderedRPN:
    """An RPN with the constants of MixSKD's Table 3: one scale (8 x stride) and three ratios a level.

    256 anchors an image, half of them positive (IoU 0.7 / 0.3), smooth L1 with beta 1/9; ``proposals`` in training and
    half as many at test after a suppression at 0.7.
    """
    anchors = AnchorGenerator(tuple((8 * stride,) for stride in (4, 8, 16, 32, 64)), ((0.5, 1.0, 2.0),) * 5)
    head = RPNHead(channels, anchors.num_anchors_per_location()[0])
    count = {"training": proposals, "testing": proposals // 2}
    rpn = BorderedRPN(anchors, head, 0.7, 0.3, 256, 0.5, count, dict(count), 0.7)
    rpn.border = border
    rpn.proposal_matcher = FloorMatcher(0.7, 0.3, allow_low_quality_matches=True)
    return rpn


class Detector(nn.Module):
    """Backbone, pyramid and RPN with the RoI head of ``architecture``: ``cascade_rcnn`` or ``faster_rcnn``.

    Images come normalised and padded; boxes are in the pixels of the images as given. Labels run from 1 to N.
    """

    def __init__(
        self,
        backbone: StagedBackbone,
        classes: int,
        config: DetectorConfig | None = None,
        *,
        architecture: str = "cascade_rcnn",
    ) -> None:
        super().__init__()
        self.config = config = config or DetectorConfig()
        frozen = backbone.pretrained if config.frozen is None else config.frozen
        self.backbone = Pyramid(backbone, channels=config.channels, frozen=frozen)
        self.rpn = make_rpn(config.channels, config.proposals, config.rpn_border)
        self.heads: CascadeHeads | RoIHeads
        if architecture == "cascade_rcnn":
            cascade = CascadeConfig(hidden=config.hidden, rois=config.rois)
            self.heads = CascadeHeads(config.channels, classes, cascade)
        else:
            self.heads = RoIHeads(
                MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2), TwoMLPHead(config.channels * 7 * 7, config.hidden),
                FastRCNNPredictor(config.hidden, classes + 1), 0.5, 0.5, config.rois, 0.25, None, 0.05, 0.5, 100,
            )  # fmt: skip

    @property
    def stages(self) -> nn.ModuleList:
        """The stages of the backbone."""
        return self.backbone.body.stages

    @property
    def name(self) -> str:
        """The name of the backbone."""
        return self.backbone.body.name

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights under the keys of its file."""
        return self.state_dict()

    def load_export_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`export_state_dict`. Raises RuntimeError if keys or shapes differ."""
        self.load_state_dict(state)

    def losses(
        self, images: Tensor, sizes: Sequence[HeightWidth], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Every loss term of a batch by name; training minimises their sum."""
        maps = self.backbone(images)
        found = [
            {**target, "size": torch.tensor(size, device=images.device)}
            for target, size in zip(targets, sizes, strict=True)
        ]
        with torch.autocast(images.device.type, enabled=False):
            proposals, rpn_losses = self.rpn(ImageList(images, [*sizes]), maps, found)
            if isinstance(self.heads, CascadeHeads):
                terms = self.heads.losses([*maps.values()][:4], proposals, targets, sizes)
            else:
                _, losses = self.heads(maps, proposals, [*sizes], found)
                terms = {FASTER_NAMES[name]: value for name, value in losses.items()}
        return {RPN_NAMES[name]: value for name, value in rpn_losses.items()} | terms

    def forward(self, images: Tensor, sizes: Sequence[HeightWidth]) -> list[dict[str, Tensor]]:
        """Detections of each image: ``boxes`` ``d x 4``, ``scores`` ``d``, ``labels`` ``d``, the best first."""
        maps = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            proposals, _ = self.rpn(ImageList(images, [*sizes]), maps)
            if isinstance(self.heads, CascadeHeads):
                return self.heads.detect([*maps.values()][:4], proposals, sizes)
            return self.heads(maps, proposals, [*sizes])[0]


class DetectionMethod(Hooks, nn.Module):
    """Trains a detector; the attribute ``backbone`` is the whole detector, which is deployed."""

    Config: ClassVar[type] = DetectorConfig
    architecture: ClassVar[str]

    def __init__(self, backbone: StagedBackbone, classes: int, config: DetectorConfig) -> None:
        super().__init__()
        self.config, self.needs = config, DataNeeds()
        self.backbone = Detector(backbone, classes, config, architecture=self.architecture)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None, *, sizes: Tensor) -> dict[str, Tensor]:
        """``loss`` and its terms of ``images`` ``B x 3 x H x W``, ``labels`` ``B x M x 5`` (label and box; label -1 for
        none) and ``sizes`` ``B x 2`` (height and width without the padding).
        """
        terms = self.backbone.losses(images, [(int(h), int(w)) for h, w in sizes.tolist()], targets_of(labels))
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}


class CascadeRCNN(DetectionMethod):
    """Cascade R-CNN, as in MixSKD's Table 3."""

    architecture = "cascade_rcnn"


class FasterRCNN(DetectionMethod):
    """torchvision's Faster R-CNN."""

    architecture = "faster_rcnn"
