"""The parts of a run of detection or segmentation: data, network, loaders and scores."""

from typing import Any

import torch

from mixskd.backbones.tokens import spatial
from mixskd.config import Experiment, flatten, to_dict
from mixskd.config.build import make_config
from mixskd.config.registry import NETWORKS
from mixskd.config.task_kinds import DETECTION
from mixskd.config.trusted_backbones import check_typed, is_elsewhere
from mixskd.data import worker_count
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.tasks.setup import Sample, TaskSetup
from mixskd.transfer.annotated import load_annotated
from mixskd.transfer.config import UNSUPPORTED
from mixskd.transfer.loaders import InOrder, Stream
from mixskd.transfer.network_file import NetworkDescription, save_network
from mixskd.transfer.pipeline import pipeline_of
from mixskd.transfer.starting_weights import make_network, normalisation_of, scaled

# Pixels of the images for which the precision is measured; those of a run are larger and of many sizes.
MEASURED_AT = 224


def set_up_transfer(experiment: Experiment, world: World, device: torch.device) -> TaskSetup:
    """The parts of ``experiment``, whose method is one of NETWORKS.

    Raises UserError for anything in the experiment or its data that cannot work.
    """
    run, network = experiment.run, experiment.method.name
    config: Any = make_config(NETWORKS[network].Config, experiment.method.options)
    check_supported(experiment)
    length = config.length(run.epochs)
    each = run.batch // world.size // run.accumulate
    if network == "deeplabv3" and each < 2 and not run.sync_bn:
        raise UserError(
            "deeplabv3 needs two or more images in each step of a process, for the batch norm on its pooled image; "
            "raise run.batch_size"
        )
    optim, rate_notes = scaled(experiment.optim, run.batch, config)
    mean, std = normalisation_of(experiment.backbone, experiment.weights)
    pipeline = pipeline_of(config, mean, std)
    data = load_annotated(
        pipeline, experiment.data.source, mean, std, experiment.data, flip=experiment.data.flip is not False
    )
    check_typed(experiment.backbone)
    method, backbone, weight_notes = make_network(experiment, len(data.classes), config)
    images, collate = pipeline.training(data.annotated["train"], flip=data.flip)
    workers = worker_count(experiment.data.workers)
    name = backbone.name if is_elsewhere(experiment.backbone) else experiment.backbone
    about = NetworkDescription(
        network=network, backbone=name, options=experiment.method.options, classes=data.classes,
        mean=mean, std=std, category_ids=getattr(data.annotated["train"], "category_ids", ()),
    )  # fmt: skip
    return TaskSetup(
        data=data,
        task=pipeline.task(data.annotated["train"], world),
        method=method,
        make_loader=lambda: Stream(
            images, collate, run.batch, device, seed=run.seed, length=length, workers=workers, world=world
        ),
        score_loaders={
            name: InOrder(*pipeline.scoring(split), workers=workers, world=world)
            for name, split in data.annotated.items()
            if name != "train"
        },
        save=lambda trained, path: save_network(trained, path, about),
        sample=Sample(
            experiment.backbone,
            backbone,
            lambda network, images: [spatial(network.feature_maps(images)[-1])],
            (max(each, 1), 3, MEASURED_AT, MEASURED_AT),
        ),
        notes=(*rate_notes, *weight_notes),
        optim=optim,
    )


def check_supported(experiment: Experiment) -> None:
    """Raises UserError for settings of classification that a detector or a segmentation network does not have."""
    given, usual, name = flatten(to_dict(experiment)), flatten(to_dict(Experiment())), experiment.method.name
    for key in UNSUPPORTED:
        if given.get(key) == usual.get(key):
            continue
        if key == "data.image_size":
            size = "method.short" if name in DETECTION.networks else "method.crop"
            raise UserError(f"{name} takes its image size from --{size}, not from data.image_size")
        raise UserError(f"{name} does not take {key}; leave it out")
