"""The three-stage RoI head of Cascade R-CNN (Cai & Vasconcelos, CVPR 2018) on torchvision's parts.

Stage t classifies and refines its RoIs, and stage t + 1 starts from the refined ones. Each stage matches them to the
ground truth at its own, higher IoU, and encodes boxes with its own, smaller standard deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes, roi_align
from torchvision.ops.poolers import LevelMapper

HeightWidth = tuple[int, int]


@dataclass(frozen=True)
class CascadeConfig:
    """The constants of the head; the defaults are those of MixSKD's Table 3 (MMDetection 2.15, cascade_rcnn_r50_fpn).

    Args:
        ious: the IoU with a ground-truth box from which a RoI of each stage is positive.
        loss_weights: the loss weights of the stages.
        stds: by which the encoded centre offsets and log sizes are divided, per stage: (x and y, width and height).
        hidden: the width of the two fully connected layers of each stage.
        rois: the RoIs that are sampled per image and stage.
        positives: the largest share of positive RoIs.
        score: detections with a lower score are dropped.
        nms: the IoU of the non-maximum suppression, per class.
        detections: the detections that are kept per image.
    """

    ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    loss_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    stds: tuple[tuple[float, float], ...] = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
    hidden: int = 1024
    rois: int = 512
    positives: float = 0.25
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100


class PyramidAlign(nn.Module):
    """RoIAlign at the pyramid level that suits a RoI's size: level floor(4 + log2(sqrt(area) / 224)), strides 4 to 32.

    The number of samples grows with the RoI (``sampling_ratio`` 0), and pixel centres are at halves (``aligned``).
    """

    def __init__(self, strides: Sequence[int] = (4, 8, 16, 32), size: int = 7) -> None:
        super().__init__()
        self.strides, self.size = tuple(strides), size
        self.level_of = LevelMapper(k_min=2, k_max=1 + len(self.strides))

    def forward(self, maps: Sequence[Tensor], rois: Sequence[Tensor]) -> Tensor:
        """``R x C x size x size`` for the R RoIs of all images, in order; ``maps`` are ``B x C x H_k x W_k``."""
        levels = self.level_of(list(rois))
        images = torch.cat([r.new_full((r.shape[0], 1), i) for i, r in enumerate(rois)])
        boxes = torch.cat([images, torch.cat([*rois])], dim=1)
        pooled = maps[0].new_zeros(boxes.shape[0], maps[0].shape[1], self.size, self.size)
        for level, (stride, one) in enumerate(zip(self.strides, maps, strict=False)):
            here = torch.where(levels == level)[0]
            aligned = roi_align(one, boxes[here].to(one.dtype), self.size, 1 / stride, sampling_ratio=0, aligned=True)
            pooled = pooled.index_put((here,), aligned)
        return pooled


class Samples(NamedTuple):
    """The RoIs of one image that a stage learns from: ``rois`` and ``targets`` (the matched ground truth) ``r x 4``,
    ``labels`` ``r`` (0 is background), and ``is_truth`` ``r``: whether a RoI is itself a ground-truth box.
    """

    rois: Tensor
    labels: Tensor
    targets: Tensor
    is_truth: Tensor


class Stage(nn.Module):
    """One stage: 7 x 7 features of a RoI -> N + 1 logits and one box refinement for all classes."""

    def __init__(
        self, channels: int, classes: int, iou: float, std: tuple[float, float], config: CascadeConfig
    ) -> None:
        super().__init__()
        self.body = TwoMLPHead(channels * 7 * 7, config.hidden)
        self.score = nn.Linear(config.hidden, classes + 1)
        self.refine = nn.Linear(config.hidden, 4)
        for layer in (self.body.fc6, self.body.fc7):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, spread in ((self.score, 0.01), (self.refine, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
        self.coder = BoxCoder((1 / std[0], 1 / std[0], 1 / std[1], 1 / std[1]))
        self.matcher = Matcher(iou, iou, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(config.rois, config.positives)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(features)
        return self.score(hidden), self.refine(hidden)

    def sample(self, rois: Tensor, boxes: Tensor, labels: Tensor) -> Samples:
        """Match the proposals ``rois`` and the ground truth itself to the ground truth, and draw some of them."""
        is_truth = torch.arange(len(rois) + len(boxes), device=rois.device) >= len(rois)
        rois = torch.cat([rois, boxes.to(rois.dtype)])
        if len(boxes):
            matches = self.matcher(box_iou(boxes, rois))
            found = labels[matches.clamp(min=0)].masked_fill(matches < 0, 0)
            targets = boxes[matches.clamp(min=0)]
        else:
            found, targets = rois.new_zeros(len(rois), dtype=torch.int64), torch.zeros_like(rois)
        positive, negative = self.sampler([found])
        drawn = torch.where(positive[0] | negative[0])[0]
        return Samples(rois[drawn], found[drawn], targets[drawn], is_truth[drawn])

    def losses(self, logits: Tensor, deltas: Tensor, samples: Sequence[Samples]) -> tuple[Tensor, Tensor]:
        """Cross-entropy over all RoIs, and the smooth L1 (beta 1) of the positive ones over the number of all RoIs."""
        labels = torch.cat([s.labels for s in samples])
        positive = labels > 0
        rois, targets = torch.cat([s.rois for s in samples]), torch.cat([s.targets for s in samples])
        encoded = self.coder.encode_single(targets[positive], rois[positive])
        count = max(len(labels), 1)
        box = F.smooth_l1_loss(deltas[positive].float(), encoded, beta=1.0, reduction="sum") / count
        return F.cross_entropy(logits.float(), labels, reduction="sum") / count, box

    @torch.no_grad()
    def refined(self, deltas: Tensor, rois: Sequence[Tensor], sizes: Sequence[HeightWidth]) -> list[Tensor]:
        """The ``rois`` of each image moved by ``deltas`` and clipped to the image."""
        moved = self.coder.decode_single(deltas.float(), torch.cat([*rois]))
        split = moved.split([r.shape[0] for r in rois])
        return [clip_boxes_to_image(boxes, size) for boxes, size in zip(split, sizes, strict=True)]


class CascadeHeads(nn.Module):
    """The stages in sequence.

    ``losses`` is for training. ``detect`` gives the boxes of the last stage. Their scores are the softmax of the mean
    of all stages' logits, as in MMDetection; the cascade's own paper averages probabilities.
    """

    def __init__(self, channels: int, classes: int, config: CascadeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CascadeConfig()
        self.align = PyramidAlign()
        self.stages = nn.ModuleList(
            Stage(channels, classes, iou, std, config) for iou, std in zip(config.ious, config.stds, strict=True)
        )

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]],
        sizes: Sequence[HeightWidth],
    ) -> dict[str, Tensor]:  # fmt: skip
        """``stage1_class``, ``stage1_box``, ...: the weighted losses. ``proposals`` are ``r x 4`` per image.

        Ground-truth boxes are among the RoIs of every stage, but are not passed on to the next stage, which would not
        see such exact boxes at test.
        """
        terms: dict[str, Tensor] = {}
        rois = [*proposals]
        for number, (stage, weight) in enumerate(zip(self.stages, self.config.loss_weights, strict=True), start=1):
            assert isinstance(stage, Stage)
            with torch.no_grad():
                samples = [stage.sample(r, t["boxes"], t["labels"]) for r, t in zip(rois, targets, strict=True)]
            logits, deltas = stage(self.align(maps, [s.rois for s in samples]))
            score, box = stage.losses(logits, deltas, samples)
            terms |= {f"stage{number}_class": weight * score, f"stage{number}_box": weight * box}
            moved = stage.refined(deltas.detach(), [s.rois for s in samples], sizes)
            rois = [r[~s.is_truth] for r, s in zip(moved, samples, strict=True)]
        return terms

    @torch.no_grad()
    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[HeightWidth]
    ) -> list[dict[str, Tensor]]:
        """``boxes`` ``d x 4``, ``scores`` ``d`` and ``labels`` ``d`` of each image, the best first."""
        rois, outputs = [*proposals], []  # the logits of all stages
        for stage in self.stages:
            assert isinstance(stage, Stage)
            logits, deltas = stage(self.align(maps, rois))
            outputs.append(logits.float())
            rois = stage.refined(deltas, rois, sizes)
        parts = torch.stack(outputs).mean(0).softmax(1).split([r.shape[0] for r in rois])
        return [self._keep(boxes, part) for boxes, part in zip(rois, parts, strict=True)]

    def _keep(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """The detections of one image after threshold and suppression; one box can be detected as several classes."""
        found, label = torch.where(scores[:, 1:] > self.config.score)
        boxes, scores, label = boxes[found], scores[found, label + 1], label + 1
        large = remove_small_boxes(boxes, 1e-2)
        boxes, scores, label = boxes[large], scores[large], label[large]
        kept = batched_nms(boxes, scores, label, self.config.nms)[: self.config.detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": label[kept]}
