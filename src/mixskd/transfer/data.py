"""The annotated images of a run, whatever their kind of label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.data import Preprocess
from mixskd.transfer.annotated import AnnotatedBundle, bundle
from mixskd.transfer.detection.coco import load_detection
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.sources import load_segmentation


def annotated_data(
    experiment: Experiment, config: Any, mean: tuple[float, ...], std: tuple[float, ...]
) -> AnnotatedBundle:
    """The images at ``data.source`` with their boxes or masks, as ``config`` asks for.

    Raises UserError for files or annotations that cannot be used.
    """
    if isinstance(config, DetectorConfig):
        return _detection_data(experiment, config, mean, std)
    return _segmentation_data(experiment, config, mean, std)


def _detection_data(
    experiment: Experiment, config: DetectorConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> AnnotatedBundle:
    """The COCO data at ``data.source``."""
    root = Path(experiment.data.source).expanduser()
    splits = load_detection(root, skip_bad=config.skip_bad_annotations)
    if not config.empty_images:
        splits["train"] = splits["train"].without_empty()
    return bundle(splits, Preprocess(max(config.short), mean, std), root, flip=experiment.data.flip is not False)


def _segmentation_data(
    experiment: Experiment, config: DeepLabConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> AnnotatedBundle:
    """The images and masks at ``data.source``."""
    root = Path(experiment.data.source).expanduser()
    splits = load_segmentation(
        root, config.kind, skip_bad=config.skip_bad_annotations, check=config.check, stuff_classes=config.stuff_classes
    )
    return bundle(splits, Preprocess(config.crop, mean, std), root, flip=experiment.data.flip is not False)
