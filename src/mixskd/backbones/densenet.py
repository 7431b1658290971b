"""DenseNet for 32 px (Huang et al., CVPR 2017; MixSKD, Table 8): plain, without bottleneck or compression."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone


class DenseLayer(nn.Module):
    """x -> concat(x, conv3x3(ReLU(BN(x)))), which adds ``growth`` channels."""

    def __init__(self, inplanes: int, growth: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(inplanes), nn.Conv2d(inplanes, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.bn(x)))], dim=1)


def densenet_40_12(num_classes: int) -> StagedBackbone:
    """Three blocks of 12 layers with growth 12, stem 16: 40 layers.

    Table 8 draws a 1x1 convolution in each layer, but only the plain net has the 40 layers and 1.1 M parameters that
    the paper states. A transition is the end of a stage: the branches of Table 8 start after it.
    """
    layers, growth, planes = 12, 12, 16
    stages: list[OrderedDict[str, nn.Module]] = []
    for i in (1, 2, 3):
        block = nn.Sequential(*(DenseLayer(planes + j * growth, growth) for j in range(layers)))
        stages.append(OrderedDict([(f"block{i}", block)]))
        planes += layers * growth
        if i < 3:
            reduction = nn.Conv2d(planes, planes, 1, bias=False)
            stages[-1][f"transition{i}"] = nn.Sequential(nn.BatchNorm2d(planes), nn.ReLU(), reduction, nn.AvgPool2d(2))
    stages[0] = OrderedDict([("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False)), *stages[0].items()])
    stages[-1] |= {"bn": nn.BatchNorm2d(planes), "relu": nn.ReLU()}
    head = nn.Linear(planes, num_classes)
    return StagedBackbone(map(nn.Sequential, stages), head, name="densenet_40_12", min_size=4)
