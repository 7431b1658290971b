"""DeepLabV3 (Chen et al., 2017) on a staged, dilated backbone with torchvision's heads, and as a method."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from mixskd.backbones import StagedBackbone
from mixskd.backbones.tokens import spatial
from mixskd.data.needs import DataNeeds
from mixskd.errors import UserError
from mixskd.methods.hooks import Hooks
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.data import IGNORE
from mixskd.transfer.strides import check_strides


class PaperHead(nn.Sequential):
    """ASPP of 512 channels, a 3x3 convolution of 512, dropout 0.1 and the classifier."""

    def __init__(self, channels: int, classes: int, rates: tuple[int, int, int]) -> None:
        super().__init__(
            ASPP(channels, rates, 512),
            nn.Conv2d(512, 512, 3, padding=1, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(512, classes, 1),
        )


class DeepLabV3(nn.Module):
    """``images`` ``B x 3 x H x W`` -> logits ``B x N x H x W``.

    The dilation rates of the ASPP are 12, 24, 36 at output stride 8, and half of them at 16. Its keys in
    :meth:`export_state_dict` are torchvision's. Raises UserError for a backbone that cannot be dilated.
    """

    def __init__(self, backbone: StagedBackbone, classes: int, config: DeepLabConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DeepLabConfig()
        widths = backbone.stage_channels()
        dilate(backbone, config.output_stride)
        backbone.head = nn.Identity()  # type: ignore[assignment]
        self.backbone, self.classes = backbone, classes
        rate = 96 // config.output_stride
        rates = (rate, 2 * rate, 3 * rate)
        head = PaperHead if config.head == "paper" else DeepLabHead
        self.classifier: nn.Module = head(widths[-1], classes, rates)
        self.aux_classifier = FCNHead(widths[-2], classes) if config.aux > 0 else None

    @property
    def stages(self) -> nn.ModuleList:
        """The stages of the backbone."""
        return self.backbone.stages

    @property
    def name(self) -> str:
        """The name of the backbone."""
        return self.backbone.name

    def forward(self, images: Tensor) -> Tensor:
        return self._enlarged(self.classifier(spatial(self.backbone.feature_maps(images)[-1])), images)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of the head and of the auxiliary head, or None."""
        *_, third, last = map(spatial, self.backbone.feature_maps(images))
        aux = None if self.aux_classifier is None else self._enlarged(self.aux_classifier(third), images)
        return self._enlarged(self.classifier(last), images), aux

    def losses(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """``pixel`` and ``aux``: cross-entropies over the pixels of ``masks`` ``B x H x W`` that are not 255.

        ``aux`` includes its weight; training minimises the sum.
        """
        logits, aux = self.both(images)
        terms = {"pixel": pixel_loss(logits, masks)}
        if aux is not None:
            terms["aux"] = self.config.aux * pixel_loss(aux, masks)
        return terms

    def _enlarged(self, logits: Tensor, images: Tensor) -> Tensor:
        corners = self.config.head == "paper"
        return F.interpolate(logits.float(), size=images.shape[-2:], mode="bilinear", align_corners=corners)

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights under torchvision's keys: ``backbone.layer1...``, ``classifier...``, ``aux_classifier...``."""
        backbone = {f"backbone.{key}": value for key, value in self.backbone.export_state_dict().items()}
        others = {key: value for key, value in self.state_dict().items() if not key.startswith("backbone.")}
        return backbone | others

    def load_export_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict of :meth:`export_state_dict` or, with ``head`` torchvision, one of torchvision's.

        Raises RuntimeError if keys or shapes differ.
        """
        own = self.export_state_dict()
        if own.keys() != state.keys():
            raise RuntimeError(f"keys differ: {sorted(own.keys() ^ state.keys())[:5]}")
        if wrong := [key for key in own if own[key].shape != state[key].shape]:
            raise RuntimeError(f"shapes differ: {wrong[:5]}")
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(state[key])


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The mean cross-entropy of ``logits`` ``B x N x H x W`` over pixels that count; 0 if none of the batch does."""
    count = (masks != IGNORE).sum().clamp(min=1)
    # CUDA has no deterministic kernel that sums by itself.
    return F.cross_entropy(logits.float(), masks, ignore_index=IGNORE, reduction="none").sum() / count


class SegmentationMethod(Hooks, nn.Module):
    """Trains DeepLabV3 as in MixSKD's Table 3; the attribute ``backbone`` is the whole network, which is deployed."""

    Config: ClassVar[type] = DeepLabConfig

    def __init__(self, backbone: StagedBackbone, classes: int, config: DeepLabConfig) -> None:
        super().__init__()
        self.config, self.needs = config, DataNeeds()
        self.backbone = DeepLabV3(backbone, classes, config)

    def forward(self, images: Tensor, labels: Tensor, draws: Any = None) -> dict[str, Tensor]:
        """``loss`` and its terms of ``images`` ``B x 3 x H x W`` and ``labels`` ``B x H x W`` (255 is ignored)."""
        terms = self.backbone.losses(images, labels)
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}


def dilate(backbone: StagedBackbone, output_stride: int) -> None:
    """Change the stride of the last map of ``backbone`` from 32 to ``output_stride`` (8, 16 or 32), in place.

    The last one or two stages keep the size of their input, and their 3x3 convolutions are dilated by 2 and 4. The
    convolution that had the stride is dilated by half of that, as in torchvision and timm. The weights do not change.
    Raises UserError for another stride, and for a backbone whose stages do not begin with a strided convolution.
    """
    if output_stride not in (8, 16, 32):
        raise UserError(f"the output stride must be 8, 16 or 32, not {output_stride}")
    check_strides(backbone)
    dilation = 1
    for stage in list(backbone.stages)[{8: 2, 16: 3, 32: 4}[output_stride] :]:
        convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
        if not any(conv.stride == (2, 2) for conv in convolutions) or any(
            isinstance(module, nn.AvgPool2d | nn.MaxPool2d) for module in stage.modules()
        ):
            raise UserError(
                f"{backbone.name} cannot be dilated; --method.output-stride 32 uses it as it is, "
                "or take a ResNet, such as resnet18 or resnet50"
            )
        before, dilation = dilation, 2 * dilation
        for conv in convolutions:
            rate = before if conv.stride == (2, 2) else dilation
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (rate, rate)
