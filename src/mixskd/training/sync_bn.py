"""Batch norm over the images of all processes."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from mixskd.backbones.from_timm import PREFIX
from mixskd.errors import UserError
from mixskd.methods.base import Method


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
