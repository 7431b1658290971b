"""The networks of the other tasks, by the name that ``method.name`` takes."""

from __future__ import annotations

from mixskd.tasks.detection.method import CascadeRCNN, DetectionMethod, FasterRCNN
from mixskd.tasks.segmentation.method import SegmentationMethod

DETECTORS: dict[str, type[DetectionMethod]] = {"cascade_rcnn": CascadeRCNN, "faster_rcnn": FasterRCNN}
SEGMENTERS: dict[str, type[SegmentationMethod]] = {"deeplabv3": SegmentationMethod}
NETWORKS: dict[str, type[DetectionMethod] | type[SegmentationMethod]] = {**DETECTORS, **SEGMENTERS}
