"""The parts of a classification run: network, method, data and the file of the classifier."""

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from mixskd.artifacts.model_file import load_model, save_model
from mixskd.backbones import StagedBackbone, build_backbone, start_from
from mixskd.backbones.pretrained import LIBRARIES, PUBLISHED, normalisation_of
from mixskd.config import DataConfig, MethodChoice, RunConfig
from mixskd.config.build import make_config
from mixskd.config.optim import LabelLoss
from mixskd.config.trusted_backbones import check_typed, is_elsewhere
from mixskd.data import DataBundle, load_data, make_test_loader, make_train_loader
from mixskd.data.labels import are_soft
from mixskd.data.preprocess import for_channels
from mixskd.data.statistics import channel_statistics
from mixskd.errors import UserError
from mixskd.methods import method_class
from mixskd.methods.base import Method
from mixskd.methods.parts.per_image_tables import table_notes
from mixskd.runtime.distributed import World
from mixskd.tasks.labels import label_task
from mixskd.tasks.setup import Sample, TaskSetup
from mixskd.training.criterion import criterion_of, imbalance_note
from mixskd.training.teachers import load_teacher


def set_up_classification(
    backbone: str, weights: str | None, choice: MethodChoice, settings: DataConfig, loss: LabelLoss, run: RunConfig,
    world: World, device: torch.device, data: DataBundle | None = None, *, resumed: bool = False,
    deferred: bool = False, epochs: int | None = None,
) -> TaskSetup:  # fmt: skip
    """What classification contributes to a run; ``data`` replaces the data that ``settings`` name.

    A ``resumed`` run does not read ``weights``. ``epochs`` are those into which ``data.scale_schedule`` is divided,
    those of ``run`` if None. ``deferred`` batches are made within the step. Raises UserError for settings or data that
    cannot be used.
    """
    data = data or load_data(settings)
    network = build_network(backbone, len(data.classes), data.image_size, data.preprocess.channels)
    check_sizes(network, data, settings)
    notes = start_from(network, weights) if weights is not None and not resumed else []
    data = normalised(data, settings, backbone, weights)
    load = partial(
        load_teacher, preprocess=data.training, classes=data.classes, several=data.several,
        one_size=not settings.scale_schedule,
    )  # fmt: skip
    method = build_method(choice, network, len(data.train), run.batch, load)
    check_labels(method, data, run)
    method.use(criterion_of(loss, data))
    notes += imbalance_note(loss, settings.balance, data)
    task = label_task(len(data.classes), several=data.several)
    if task.fits and "val" not in data.splits:
        notes.append("without a val split the thresholds of all classes stay 0.5; hold one out: --data.val-holdout 0.1")
    notes += table_notes((x for x in method.buffers() if x.ndim == 2 and len(x) == len(data.train)), device)
    loaded, planned = data, epochs or run.epochs
    copies = method.about.images if method.about is not None else 1
    images = copies * run.batch // world.size // run.accumulate
    return TaskSetup(
        data=data,
        task=task,
        method=method,
        make_loader=lambda: make_train_loader(
            loaded, settings, run.batch, device, run.seed, method.needs, world, deferred=deferred, epochs=planned
        ),
        score_loaders={
            split: make_test_loader(data, device, split=split, workers=settings.workers, world=world)
            for split in data.splits
            if split == data.scored or (split == "test" and run.score_test)
        },
        save=lambda deployed, path: save_model(
            deployed, path, backbone_name=deployed.name if is_elsewhere(backbone) else backbone,
            classes=loaded.classes, **dataclasses.asdict(loaded.preprocess), thresholds=task.thresholds,
        ),
        sample=Sample(
            f"{backbone} with {choice.name}", method, lambda method, images: method.heads(images).values(),
            (images, network.in_channels, data.image_size, data.image_size),
        ),
        notes=tuple(notes),
    )  # fmt: skip


def check_labels(method: Method, data: DataBundle, run: RunConfig) -> None:
    """Raises UserError if the labels of ``data`` are of a kind that the method or a setting cannot use."""
    if are_soft(data.train.labels) and not method.soft_labels:
        raise UserError(
            "this method needs one class an image as its label, but the data have probabilities of classes; take "
            "another, such as --method mixup"
        )
    if data.several and run.all_heads:
        raise UserError("run.all_heads is for one label an image, but the data have several; leave it out")


def build_network(name: str, classes: int, image_size: int | None, channels: int = 3) -> StagedBackbone:
    """The backbone for images of ``image_size`` pixels (its usual size if None) and ``channels`` channels.

    Raises UserError for images that are too small.
    """
    check_typed(name)
    backbone = build_backbone(name, classes, image_size, channels=channels)
    if image_size is not None and image_size < backbone.min_size:
        raise UserError(
            f"{name} takes images of {backbone.min_size} px or more, not {image_size}; "
            f"set --data.image-size {backbone.default_size}"
        )
    return backbone


def check_sizes(network: StagedBackbone, data: DataBundle, settings: DataConfig) -> None:
    """Raises UserError if ``network`` cannot take the images of ``eval_size`` or of ``scale_schedule``."""
    for name, sizes in (("eval_size", [data.preprocess.image_size]), ("scale_schedule", settings.scale_schedule)):
        if network.fixed and any(size != data.image_size for size in sizes):
            raise UserError(f"{network.name} takes only images of {data.image_size} px; leave data.{name} out")
        if (least := min(sizes, default=network.min_size)) < network.min_size:
            raise UserError(f"{network.name} takes images of {network.min_size} px or more; data.{name} has {least}")


def build_method(
    choice: MethodChoice,
    backbone: StagedBackbone,
    images: int,
    batch_size: int,
    load: Callable[[str], nn.Module] = load_model,
) -> Method:
    """The method on its backbone for ``images`` training images in batches of ``batch_size``.

    ``load`` reads a trained classifier that the method names. Raises UserError for hyper-parameters that cannot work.
    """
    method_type = method_class(choice.name)
    method: Method = method_type(backbone, make_config(method_type.Config, choice.options))
    method.prepare(images, load)
    method.prepare_batch(batch_size)
    return method


def normalised(data: DataBundle, settings: DataConfig, backbone: str, weights: str | None) -> DataBundle:
    """``data`` with the mean and std with which the weights were trained; else with those of its training images, or as
    it is if they are RGB images of 8 bits. ``settings.normalise`` may ask for those of the training images.
    """
    p, known = data.preprocess, weights == PUBLISHED or (weights is not None and backbone.startswith(LIBRARIES))
    found = normalisation_of(backbone) if known else None
    if settings.normalise == "train" or (found is None and (p.channels != 3 or p.range is not None)):
        found = channel_statistics(data)
    if found is None:
        return data
    found = for_channels(found[0], p.channels), for_channels(found[1], p.channels)
    return dataclasses.replace(data, preprocess=dataclasses.replace(p, mean=found[0], std=found[1]))
