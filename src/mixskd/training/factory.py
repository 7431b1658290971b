"""The one factory: it builds the parts of a run from an experiment."""

import dataclasses

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from mixskd.backbones.from_timm import PREFIX
from mixskd.config import Experiment, RunConfig
from mixskd.config.experiment import planned_epochs
from mixskd.config.optim import LabelLoss
from mixskd.config.registry import NETWORKS
from mixskd.data import DataBundle
from mixskd.errors import UserError
from mixskd.methods.base import Method
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import choose_device
from mixskd.training.classification import set_up_classification
from mixskd.training.engine import Engine, choose_engine, configure_process, for_optimizer
from mixskd.training.examples import ShowExamples
from mixskd.training.measured_precision import is_measured, with_faster_precision
from mixskd.training.parts import Parts
from mixskd.training.schedule import remarks
from mixskd.training.step import build_step


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

    A ``resumed`` run has its weights in its checkpoint. ``engine`` and ``data`` replace those of the experiment.
    ``keep_memory`` lets a CPU reuse freed memory. Raises UserError for an experiment or data that cannot be used.
    """
    run, world = experiment.run, world or World()
    device = choose_device(run.device)
    transfer = experiment.method.name in NETWORKS
    if keep_memory or device.type != "cpu":
        configure_process(device, deterministic=run.deterministic, fixed_shapes=not transfer)
    notes: list[str] = []
    measure = engine is None and not resumed  # a resumed run keeps the precision of its checkpoint
    if engine is None:
        engine, notes = choose_engine(run, device, world, fixed_shapes=not transfer)
    engine = for_optimizer(engine, experiment.optim.name)
    torch.manual_seed(run.seed)
    if transfer:
        from mixskd.transfer.setup import set_up_transfer  # imported only if needed: it takes long

        setup = set_up_transfer(experiment, world, device)
        experiment = dataclasses.replace(experiment, optim=setup.optim or experiment.optim)
    else:
        optim = experiment.optim
        loss = LabelLoss(optim.class_weights, optim.effective_beta, optim.logit_adjustment, optim.asymmetric)
        setup = set_up_classification(  # without the experiment, whose other settings do not concern it
            experiment.backbone, experiment.weights, experiment.method, experiment.data, loss, run, world, device, data,
            resumed=resumed, deferred=engine.cuda_graphs, epochs=planned_epochs(optim.restarts, run.epochs),
        )  # fmt: skip
    method = setup.method
    check_selection(run, setup.data)
    check_batch(run, world)
    if run.sync_bn:
        if device.type != "cuda":
            raise UserError("run.sync_bn needs GPUs; leave it out on the CPU")
        method = with_sync_bn(method)
    loader = setup.make_loader()
    if measure:
        engine = with_faster_precision(engine, run, device, world, setup.sample)
    optim, started = experiment.optim, experiment.weights is not None
    step = build_step(method, optim, device, engine, run.accumulate, world, started=started)
    notes = [*setup.data.notes, *notes, *setup.notes, *remarks(optim, run.epochs)]
    parts = Parts(
        experiment, world, device, setup.data, setup.task, step, loader, setup.score_loaders, setup.save, notes
    )
    if not transfer:
        parts.examples = ShowExamples(parts)
    return parts


def engine_of(experiment: Experiment, data: DataBundle | None = None) -> tuple[Engine, list[str]]:
    """The engine with which ``train`` would run ``experiment``, and notes on it; measured where ``train`` measures."""
    device = choose_device(experiment.run.device)
    engine, notes = choose_engine(experiment.run, device, World())
    if is_measured(engine, experiment.run, device):
        engine = build_parts(experiment, data=data, keep_memory=False).step.engine
    return engine, notes


def check_batch(run: RunConfig, world: World) -> None:
    """Raises UserError if the images of a process cannot be divided into ``run.accumulate`` equal parts."""
    each = run.batch // world.size
    if each % run.accumulate:
        raise UserError(f"run.accumulate {run.accumulate} does not divide the {each} images of each process")


def check_selection(run: RunConfig, data: DataBundle) -> None:
    """Raises UserError if ``run`` selects weights or an early stop on ``val`` and there is no ``val``."""
    if "val" in data.splits:
        return
    if not run.score_test:
        raise UserError("run.score_test false needs a val split to score; hold one out with --data.val-holdout 0.1")
    how = "give the data a val split, or hold one out with --data.val-holdout 0.1"
    if run.keep == "best":
        raise UserError(f"run.keep best needs a val split, since test must not choose the weights; {how}")
    if run.patience > 0:
        raise UserError(f"run.patience needs a val split, since test must not end the training; {how}")


def with_sync_bn(method: Method) -> Method:
    """``method`` with batch norm over the images of all processes.

    timm's norm layers keep their activation, which torch's own conversion would drop. Raises UserError for other norm
    layers that are not torch's own.
    """
    kinds = {type(module) for module in method.modules() if isinstance(module, BatchNorm)}
    if odd := sorted(kind.__name__ for kind in kinds - {nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm}):
        if not method.backbone.name.startswith(PREFIX):
            raise UserError(
                f"run.sync_bn cannot convert the layer {odd[0]}, which may do more than normalise; leave it out"
            )
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(method)
    return nn.SyncBatchNorm.convert_sync_batchnorm(method)
