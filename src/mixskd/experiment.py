"""The one factory: from an experiment to the parts that training, benchmark and cost work with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones import StagedBackbone, build_backbone, start_from
from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.from_torchvision import TORCHVISION
from mixskd.backbones.pretrained import PUBLISHED, normalisation_of
from mixskd.config import Experiment, MethodChoice, RunConfig
from mixskd.data import DataBundle, load_data, make_test_loader, make_train_loader
from mixskd.deploy.model_file import load_model, save_model
from mixskd.deploy.teachers import load_teacher
from mixskd.distributed import World
from mixskd.elsewhere import check_typed, is_elsewhere
from mixskd.errors import UserError
from mixskd.methods import METHODS, make_config, method_class
from mixskd.methods.base import Method
from mixskd.precision import choose_device
from mixskd.tasks.base import Task
from mixskd.tasks.classification import Classification
from mixskd.training.arithmetic import measured, pays
from mixskd.training.engine import Engine, choose_engine, configure_process, for_optimizer
from mixskd.training.examples import Examples, ShowExamples
from mixskd.training.schedule import remarks
from mixskd.training.step import TrainStep, build_step
from mixskd.training.sync_bn import with_sync_bn


@dataclass
class Parts:
    """All that a run is made of.

    Args:
        experiment: what was asked for.
        world: this process among all.
        device: where the step runs.
        data: the images by split.
        task: what a label is.
        step: the method with its optimizer and the moving average of its weights.
        loader: the training batches; ``loader.epoch(e, start)`` are those of an epoch.
        score_loaders: batches of images and targets of each split but ``train``, by its name.
        notes: what a person should know before the run begins.
        writer: writes the deployed model to a file; None for a classifier's model file.
        examples: computes a few images and mixes with their predictions; None for tasks without classes.
    """

    experiment: Experiment
    world: World
    device: torch.device
    data: DataBundle
    task: Task
    step: TrainStep
    loader: Any
    score_loaders: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    writer: Callable[[nn.Module, Path], None] | None = None
    examples: Callable[[], Examples] | None = None

    def save(self, path: Path) -> None:
        """Write the deployed model to ``path``. Raises UserError on a full disk."""
        if self.writer is not None:
            self.writer(self.deployed, path)
            return
        save_model(
            self.deployed,
            path,
            backbone_name=self.deployed.name if is_elsewhere(self.experiment.backbone) else self.experiment.backbone,
            classes=self.data.classes,
            image_size=self.data.image_size,
            mean=self.data.mean,
            std=self.data.std,
            resize=self.data.preprocess.resize,
        )

    @property
    def deployed(self) -> StagedBackbone:
        """The model that is evaluated and saved: the backbone, or its moving average."""
        ema = self.step.ema
        return ema.module if ema is not None else self.step.method.backbone  # type: ignore[return-value]


def build_parts(
    experiment: Experiment,
    world: World | None = None,
    *,
    resumed: bool = False,
    engine: Engine | None = None,
    data: DataBundle | None = None,
    keep_memory: bool = True,
) -> Parts:
    """The parts of ``experiment``, with its weights as they are before the first step.

    A run that is ``resumed`` has its weights in its checkpoint. ``engine`` and ``data`` replace what the experiment
    would choose; ``keep_memory`` has a CPU reuse freed memory. Raises UserError for anything in the experiment or its
    data that cannot work.
    """
    run, world = experiment.run, world or World()
    device = choose_device(run.device)
    if keep_memory or device.type != "cpu":
        configure_process(device, deterministic=run.deterministic)
    notes: list[str] = []
    given = engine is not None or resumed  # a resumed run goes on with what it chose
    if engine is None:
        engine, notes = choose_engine(run, device, world)
    engine = for_optimizer(engine, experiment.optim.name)
    if experiment.method.name not in METHODS:
        from mixskd.tasks.networks import NETWORKS

        if experiment.method.name in NETWORKS:
            from mixskd.tasks.parts import transfer_parts

            return transfer_parts(experiment, world, device, engine, notes, given=given)
    torch.manual_seed(run.seed)
    data = data or load_data(experiment.data)
    check_selection(run, data)
    network = build_network(experiment.backbone, len(data.classes), data.image_size)
    weights = experiment.weights
    weights_notes = start_from(network, weights) if weights is not None and not resumed else []
    if (mean_and_std := expected_normalisation(experiment.backbone, experiment.weights)) is not None:
        mean, std = mean_and_std
        data = dataclasses.replace(data, preprocess=dataclasses.replace(data.preprocess, mean=mean, std=std))
    load = partial(load_teacher, preprocess=data.preprocess, classes=data.classes)
    method = build_method(experiment.method, network, len(data.train), run.batch_size, load)
    notes = [*data.notes, *notes, *weights_notes, *remarks(experiment.optim, run.epochs)]
    if run.sync_bn:
        if device.type != "cuda":
            raise UserError("run.sync_bn needs GPUs; leave it out on the CPU")
        method = with_sync_bn(method)
    loader = make_train_loader(data, experiment.data, run.batch_size, device, run.seed, method.needs, world)
    loader.deferred = engine.cuda_graphs
    score_loaders = {
        split: make_test_loader(data, device, split=split, workers=experiment.data.workers, world=world)
        for split in data.splits
        if split != "train"
    }
    if (run.batch_size // world.size) % run.accumulate:
        raise UserError(
            f"run.accumulate {run.accumulate} does not divide the {run.batch_size // world.size} images of each process"
        )
    if not given:
        copies = method.about.images if method.about is not None else 1
        shape = (copies * run.batch_size // world.size // run.accumulate, 3, data.image_size, data.image_size)
        name = f"{experiment.backbone} with {experiment.method.name}"
        engine = measured(engine, run, device, world, name, method, all_heads, shape)
    step = build_step(method, experiment.optim, device, engine, run.accumulate, world, started=weights is not None)
    task = Classification(len(data.classes))
    parts = Parts(experiment, world, device, data, task, step, loader, score_loaders, notes)
    parts.examples = ShowExamples(parts)
    return parts


def engine_of(experiment: Experiment, data: DataBundle | None = None) -> tuple[Engine, list[str]]:
    """How ``train`` would carry out the step of ``experiment``, measured where ``train`` measures, and notes on it."""
    device = choose_device(experiment.run.device)
    engine, notes = choose_engine(experiment.run, device, World())
    if pays(engine, experiment.run, device):
        engine = build_parts(experiment, data=data, keep_memory=False).step.engine
    return engine, notes


def all_heads(method: Method, images: Tensor) -> Iterable[Tensor]:
    """The logits of every classifier that ``method`` trains: its whole network on ``images``."""
    return method.heads(images).values()


def build_network(name: str, classes: int, image_size: int | None) -> StagedBackbone:
    """The backbone for images of ``image_size`` pixels, its usual size if None.

    Raises UserError for images that are too small.
    """
    check_typed(name)
    backbone = build_backbone(name, classes, image_size)
    if image_size is not None and image_size < backbone.min_size:
        raise UserError(
            f"{name} takes images of {backbone.min_size} px or more, not {image_size}; "
            f"set --data.image-size {backbone.default_size}"
        )
    return backbone


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
    method = method_type(backbone, make_config(method_type.Config, choice.options))
    method.prepare(images, load)
    method.prepare_batch(batch_size)
    return method


def expected_normalisation(backbone: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that the weights were trained with; None if the data's own are as good."""
    if weights is None:
        return None
    if weights == PUBLISHED or backbone.startswith((PREFIX, TORCHVISION)):
        return normalisation_of(backbone)
    return None


def check_selection(run: RunConfig, data: DataBundle) -> None:
    """Raises UserError if the weights or an early stop are to be chosen on ``val``, and there is no ``val``."""
    if "val" in data.splits:
        return
    how = "give the data a val split, or hold one out with --data.val-holdout 0.1"
    if run.keep == "best":
        raise UserError(f"run.keep best needs a val split, since test must not choose the weights; {how}")
    if run.patience > 0:
        raise UserError(f"run.patience needs a val split, since test must not end the training; {how}")
