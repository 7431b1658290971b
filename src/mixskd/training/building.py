"""The network and objective of an experiment."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from mixskd.backbones import build_backbone, start_from
from mixskd.backbones.from_timm import PREFIX
from mixskd.config import Experiment
from mixskd.data import DataBundle
from mixskd.deploy.model_file import load_model
from mixskd.errors import UserError
from mixskd.methods import make_config, method_class
from mixskd.methods.base import Method


def build_method(experiment: Experiment, data: DataBundle, *, resumed: bool = False) -> tuple[Method, list[str]]:
    """The method on its backbone, ready to be trained on ``data``, and notes on the weights that it starts from.

    A run that is ``resumed`` has its weights in its checkpoint. Raises UserError for images that are too small, and for
    weights that do not fit.
    """
    backbone = build_backbone(experiment.backbone, len(data.classes))
    if data.image_size < backbone.min_size:
        raise UserError(
            f"{experiment.backbone} takes images of {backbone.min_size} px or more, not {data.image_size}; "
            f"set --data.image-size {backbone.default_size}"
        )
    weights = None if resumed else experiment.weights
    notes = [] if weights is None else start_from(backbone, weights)
    method_type = method_class(experiment.method.name)
    method = method_type(backbone, make_config(method_type.Config, experiment.method.options))
    method.prepare(len(data.train), load_model)
    return method, notes


def with_sync_bn(method: Method) -> Method:
    """``method`` with batch norm over the images of all processes.

    timm's layers that hold their activation too keep it; torch's own conversion would drop it. Raises UserError for
    such a layer of another origin.
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
