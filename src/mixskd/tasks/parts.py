"""The parts of a run that trains a detector or a segmentation network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.backbones import StagedBackbone
from mixskd.backbones.tokens import spatial
from mixskd.config import Experiment
from mixskd.data import Preprocess, worker_count
from mixskd.distributed import World
from mixskd.elsewhere import check_typed
from mixskd.errors import UserError
from mixskd.experiment import Parts, check_selection
from mixskd.methods import make_config
from mixskd.tasks.annotated import AnnotatedBundle, bundle
from mixskd.tasks.base import Task
from mixskd.tasks.detection.coco import load_detection
from mixskd.tasks.detection.config import DetectorConfig
from mixskd.tasks.detection.evaluation import Detection, check_installed
from mixskd.tasks.detection.loading import DetectionImages, ScoreBatch, Sizes
from mixskd.tasks.detection.loading import augmentation as detection_augmentation
from mixskd.tasks.detection.loading import train_batch as detection_batch
from mixskd.tasks.network_file import About, save_network
from mixskd.tasks.networks import DETECTORS, NETWORKS
from mixskd.tasks.segmentation.config import DeepLabConfig
from mixskd.tasks.segmentation.evaluation import Segmentation
from mixskd.tasks.segmentation.loading import SegmentationImages, normalisation, score_batch
from mixskd.tasks.segmentation.loading import augmentation as segmentation_augmentation
from mixskd.tasks.segmentation.loading import train_batch as segmentation_batch
from mixskd.tasks.segmentation.sources import load_segmentation
from mixskd.tasks.streaming import InOrder, Stream
from mixskd.tasks.transfer import TransferConfig, make_backbone, normalisation_of, scaled
from mixskd.training.arithmetic import measured
from mixskd.training.engine import Engine
from mixskd.training.schedule import remarks
from mixskd.training.step import build_step
from mixskd.training.sync_bn import with_sync_bn


def transfer_parts(
    experiment: Experiment,
    world: World,
    device: torch.device,
    engine: Engine,
    engine_notes: Sequence[str] = (),
    *,
    given: bool = True,
) -> Parts:
    """The parts of ``experiment``, whose method is one of NETWORKS, as the trainer takes them.

    Unless the ``engine`` is ``given``, its precision is measured where that is of use. Raises UserError for anything in
    the experiment or its data that cannot work.
    """
    run = experiment.run
    kind = NETWORKS[experiment.method.name]
    config: Any = make_config(kind.Config, experiment.method.options)
    check_supported(experiment)
    experiment, notes = scaled(experiment, config)
    mean, std = normalisation_of(experiment.backbone, experiment.weights)
    if experiment.method.name in DETECTORS:
        check_installed()
        data = detection_data(experiment, config, mean, std)
    else:
        data = segmentation_data(experiment, config, mean, std)
    check_selection(experiment.run, data)
    torch.manual_seed(run.seed)
    check_typed(experiment.backbone)
    backbone, weight_notes = make_backbone(experiment.backbone, experiment.weights)
    method: Any = kind(backbone, len(data.classes), config)
    if run.sync_bn:
        if device.type != "cuda":
            raise UserError("run.sync_bn needs GPUs; leave it out on the CPU")
        method = with_sync_bn(method)
    images, collate = training_images(data, config)
    workers = worker_count(experiment.data.workers)
    loader = Stream(
        images, collate, run.batch_size, device, seed=run.seed, length=config.length(run.epochs), workers=workers,
        world=world,
    )  # fmt: skip
    if (run.batch_size // world.size) % run.accumulate:
        raise UserError(
            f"run.accumulate {run.accumulate} does not divide the {run.batch_size // world.size} images of each process"
        )
    if isinstance(config, DeepLabConfig) and run.batch_size // world.size // run.accumulate < 2 and not run.sync_bn:
        raise UserError(
            "deeplabv3 needs two or more images in each step of a process, for the batch norm on its pooled image; "
            "raise run.batch_size"
        )
    # Shapes change from batch to batch, and torchvision's matching and suppression wait for the device.
    engine = dataclasses.replace(engine, compile=False, cuda_graphs=False, small_maps=None)
    if not given:
        shape = (run.batch_size // world.size // run.accumulate, 3, MEASURED_AT, MEASURED_AT)
        engine = measured(engine, run, device, world, experiment.backbone, backbone, feature_grids, shape)
    started = experiment.weights is not None
    step = build_step(method, experiment.optim, device, engine, run.accumulate, world, started=started)
    score_loaders = {
        split: score_loader(data, split, config, workers=workers, world=world)
        for split in data.splits
        if split != "train"
    }
    about = About(
        network=experiment.method.name, backbone=experiment.backbone, options=experiment.method.options,
        classes=data.classes, mean=mean, std=std, category_ids=getattr(data.annotated["train"], "category_ids", ()),
    )  # fmt: skip
    return Parts(
        experiment, world, device, data, task_of(data, config), step, loader, score_loaders,
        [*data.notes, *engine_notes, *notes, *weight_notes, *remarks(experiment.optim, run.epochs)],
        writer=lambda model, path: save_network(model, path, about),
    )  # fmt: skip


# Pixels of the images for which the precision is measured; those of a run are larger and of many sizes.
MEASURED_AT = 224


def feature_grids(backbone: StagedBackbone, images: Tensor) -> list[Tensor]:
    """What a network is put on: the last map of ``backbone``, the result of all its stages."""
    return [spatial(backbone.feature_maps(images)[-1])]


def check_supported(experiment: Experiment) -> None:
    """Raises UserError for settings of classification that a detector or a segmentation network does not have."""
    data, name = experiment.data, experiment.method.name
    unsupported = {
        "run.all_heads": experiment.run.all_heads, "data.augment": data.augment != "none",
        "data.color_jitter": bool(data.color_jitter), "data.balance": data.balance > 0,
        "data.per_class": data.per_class is not None, "data.val_holdout": data.val_holdout > 0,
        "data.group": data.group is not None, "optim.layer_decay": experiment.optim.layer_decay != 1,
        "optim.fresh_lr_scale": experiment.optim.fresh_lr_scale != 1, "optim.freeze": experiment.optim.freeze > 0,
        "optim.head_start": experiment.optim.head_start != "random", "optim.norms": experiment.optim.norms != "train",
    }  # fmt: skip
    if found := [key for key, given in unsupported.items() if given]:
        raise UserError(f"{name} does not take {found[0]}; leave it out")
    if data.image_size is not None:
        size = "method.short" if name in DETECTORS else "method.crop"
        raise UserError(f"{name} takes its image size from --{size}, not from data.image_size")


def detection_data(
    experiment: Experiment, config: DetectorConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> AnnotatedBundle:
    """The COCO data at ``data.source``."""
    root = Path(experiment.data.source).expanduser()
    splits = load_detection(root, skip_bad=config.skip_bad_annotations)
    if not config.empty_images:
        splits["train"] = splits["train"].without_empty()
    return bundle(splits, Preprocess(max(config.short), mean, std), root, flip=experiment.data.flip is not False)


def segmentation_data(
    experiment: Experiment, config: DeepLabConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> AnnotatedBundle:
    """The images and masks at ``data.source``."""
    root = Path(experiment.data.source).expanduser()
    splits = load_segmentation(
        root, config.kind, skip_bad=config.skip_bad_annotations, check=config.check, stuff_classes=config.stuff_classes
    )
    return bundle(splits, Preprocess(config.crop, mean, std), root, flip=experiment.data.flip is not False)


def training_images(data: AnnotatedBundle, config: TransferConfig) -> tuple[Any, Any]:
    """The augmented training images, and what makes a batch of them."""
    split, mean, std = data.annotated["train"], data.mean, data.std
    if isinstance(config, DetectorConfig):
        transform = detection_augmentation(Sizes(config.short, config.long), mean, std, flip=data.flip)
        return DetectionImages(split, transform), detection_batch
    assert isinstance(config, DeepLabConfig)
    transform = segmentation_augmentation(
        config.crop, mean, std, config.scales, flip=data.flip, colours=config.colours
    )  # fmt: skip
    return SegmentationImages(split, transform), segmentation_batch


def score_loader(
    data: AnnotatedBundle, name: str, config: TransferConfig, *, workers: int, world: World | None = None
) -> InOrder:
    """Every image of the split ``name`` once, whole, as it is scored."""
    split = data.annotated[name]
    if isinstance(config, DetectorConfig):
        transform = detection_augmentation(Sizes(config.short, config.long), data.mean, data.std, train=False)
        return InOrder(DetectionImages(split, transform), ScoreBatch(split), workers=workers, world=world)
    assert isinstance(config, DeepLabConfig)
    images = SegmentationImages(split, normalisation(data.mean, data.std, colours=config.colours))
    return InOrder(images, score_batch, workers=workers, world=world)


def task_of(data: AnnotatedBundle, config: TransferConfig) -> Task:
    """What scores the networks of ``config`` on ``data``."""
    if isinstance(config, DetectorConfig):
        return Detection(data.classes)
    return Segmentation(data.classes, data.annotated["train"].released_classes)
