"""What detection and segmentation contribute to a run: data, network, loaders and scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixskd.backbones import StagedBackbone
from mixskd.backbones.tokens import spatial
from mixskd.config import Experiment, RunConfig
from mixskd.config.build import make_config
from mixskd.config.registry import NETWORKS
from mixskd.config.task_kinds import DETECTION
from mixskd.config.trusted_backbones import check_typed
from mixskd.data import worker_count
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.tasks.base import Task
from mixskd.tasks.setup import Sample, TaskSetup
from mixskd.transfer.annotated import AnnotatedBundle
from mixskd.transfer.data import annotated_data
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.evaluation import Detection, check_installed
from mixskd.transfer.detection.loading import DetectionImages, ScoreBatch, Sizes
from mixskd.transfer.detection.loading import augmentation as detection_augmentation
from mixskd.transfer.detection.loading import train_batch as detection_batch
from mixskd.transfer.loaders import InOrder, Stream
from mixskd.transfer.network_file import About, save_network
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.evaluation import Segmentation
from mixskd.transfer.segmentation.loading import SegmentationImages, normalisation, score_batch
from mixskd.transfer.segmentation.loading import augmentation as segmentation_augmentation
from mixskd.transfer.segmentation.loading import train_batch as segmentation_batch
from mixskd.transfer.start import TransferConfig, make_backbone, normalisation_of, scaled


def set_up_transfer(experiment: Experiment, world: World, device: torch.device) -> TaskSetup:
    """The parts of ``experiment``, whose method is one of NETWORKS.

    Raises UserError for anything in the experiment or its data that cannot work.
    """
    run = experiment.run
    kind = NETWORKS[experiment.method.name]
    config: Any = make_config(kind.Config, experiment.method.options)
    check_supported(experiment)
    check_norm_images(run, config, world)
    if isinstance(config, DetectorConfig):
        check_installed()
    experiment, rate_notes = scaled(experiment, config)
    mean, std = normalisation_of(experiment.backbone, experiment.weights)
    data = annotated_data(experiment, config, mean, std)
    check_typed(experiment.backbone)
    backbone, weight_notes = make_backbone(experiment.backbone, experiment.weights)
    method: Any = kind(backbone, len(data.classes), config)
    images, collate = training_images(data, config)
    workers = worker_count(experiment.data.workers)
    about = About(
        network=experiment.method.name, backbone=experiment.backbone, options=experiment.method.options,
        classes=data.classes, mean=mean, std=std, category_ids=getattr(data.annotated["train"], "category_ids", ()),
    )  # fmt: skip
    return TaskSetup(
        experiment=experiment,
        data=data,
        task=task_of(data, config),
        method=method,
        make_loader=lambda: Stream(
            images, collate, run.batch_size, device, seed=run.seed, length=config.length(run.epochs), workers=workers,
            world=world,
        ),
        score_loaders={
            split: score_loader(data, split, config, workers=workers, world=world)
            for split in data.splits
            if split != "train"
        },
        save=lambda network, path: save_network(network, path, about),
        sample=Sample(
            experiment.backbone,
            backbone,
            last_maps,
            (run.batch_size // world.size // run.accumulate, 3, MEASURED_AT, MEASURED_AT),
        ),
        notes=(*rate_notes, *weight_notes),
    )  # fmt: skip


# Pixels of the images for which the precision is measured; those of a run are larger and of many sizes.
MEASURED_AT = 224


def last_maps(backbone: StagedBackbone, images: Tensor) -> list[Tensor]:
    """The last map of ``backbone``, on which the network stands."""
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
        size = "method.short" if name in DETECTION.networks else "method.crop"
        raise UserError(f"{name} takes its image size from --{size}, not from data.image_size")


def check_norm_images(run: RunConfig, config: TransferConfig, world: World) -> None:
    """Raises UserError if the norm on DeepLabV3's pooled image would see one image."""
    if isinstance(config, DeepLabConfig) and run.batch_size // world.size // run.accumulate < 2 and not run.sync_bn:
        raise UserError(
            "deeplabv3 needs two or more images in each step of a process, for the batch norm on its pooled image; "
            "raise run.batch_size"
        )


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
