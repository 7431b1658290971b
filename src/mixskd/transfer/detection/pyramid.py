"""A feature pyramid on the stage maps of a classification backbone."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from mixskd.backbones import StagedBackbone
from mixskd.backbones.tokens import spatial
from mixskd.transfer.strides import check_strides


class Pyramid(nn.Module):
    """A backbone without its classifier and a feature pyramid (FPN): five maps of ``channels`` at strides 4 to 64.

    With ``frozen`` the stem and the first stage are not trained, and batch norm keeps its running statistics, while its
    scale and shift are trained from the second stage on (MixSKD, Table 3).

    Raises UserError for a backbone whose stage maps do not have the strides 4, 8, 16 and 32.
    """

    def __init__(self, backbone: StagedBackbone, *, channels: int = 256, frozen: bool = True) -> None:
        super().__init__()
        check_strides(backbone)
        widths = backbone.stage_channels()
        self.body, self.frozen = backbone, frozen
        self.body.head = nn.Identity()  # type: ignore[assignment]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels
        if frozen:
            self.body.stages[0].requires_grad_(False)
            self.train(self.training)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The fp32 maps ``B x channels x H_k x W_k`` of images ``B x 3 x H x W``, named ``0`` to ``3`` and ``pool``."""
        maps = map(spatial, self.body.feature_maps(images))
        pyramid = self.fpn(OrderedDict((str(k), one) for k, one in enumerate(maps)))
        return OrderedDict((name, one.float()) for name, one in pyramid.items())

    def train(self, mode: bool = True) -> Pyramid:
        """Training mode; the norms of a frozen body stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for module in self.body.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self
