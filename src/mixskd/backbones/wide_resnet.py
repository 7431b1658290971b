"""Wide residual networks for 32 px (Zagoruyko & Komodakis, BMVC 2016; MixSKD, Table 7)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError


class WideBlock(nn.Module):
    """BN-ReLU-conv3x3 twice; where the shape changes, the shortcut is a 1x1 convolution of the activated input."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inplanes), nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(planes), nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        changes = stride > 1 or inplanes != planes
        self.shortcut = nn.Conv2d(inplanes, planes, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(torch.relu(self.bn2(self.conv1(y)))) + residual


def wide_resnet(num_classes: int, *, depth: int = 16, width: int = 2) -> StagedBackbone:
    """WRN-``depth``-``width``: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times ``width`` channels.

    Raises UserError for a depth that is not 6 n + 4.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1 or width < 1:
        raise UserError(f"wrn_{depth}_{width}: the depth must be 6 n + 4 (10, 16, 22, 28, 40 ...), the width 1 or more")
    widths = [16, 16 * width, 32 * width, 64 * width]
    stages = []
    for i in range(3):
        group = [WideBlock(widths[i], widths[i + 1], 1 if i == 0 else 2)]
        group += [WideBlock(widths[i + 1], widths[i + 1], 1) for _ in range(blocks - 1)]
        stages.append(OrderedDict[str, nn.Module]([(f"group{i + 1}", nn.Sequential(*group))]))
    stages[0] = OrderedDict([("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False)), *stages[0].items()])
    stages[-1] |= {"bn": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU()}
    head = nn.Linear(widths[-1], num_classes)
    return StagedBackbone(map(nn.Sequential, stages), head, name=f"wrn_{depth}_{width}")
