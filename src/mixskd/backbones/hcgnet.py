"""HCGNet-A1 for 32 px: gated convolutions with hybrid connectivity (Yang et al., AAAI 2020; MixSKD, Table 9)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mixskd.backbones.staged import StagedBackbone


class PreActConv(nn.Sequential):
    """BN-ReLU-conv without bias; the padding keeps the size at stride 1."""

    def __init__(
        self, inplanes: int, planes: int, size: int, stride: int = 1, *, groups: int = 1, dilation: int = 1
    ) -> None:
        conv = nn.Conv2d(
            inplanes, planes, size, stride, dilation * (size // 2), dilation=dilation, groups=groups, bias=False
        )
        super().__init__(OrderedDict(bn=nn.BatchNorm2d(inplanes), relu=nn.ReLU(), conv=conv))


class SpatialAttention(nn.Module):
    """``B x k x H x W`` -> ``B x k``: the sum over positions, weighted by the softmax of a 1x1 convolution."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(planes, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.conv(x).flatten(2)
        weights = scores.softmax(2, dtype=torch.promote_types(scores.dtype, torch.float32))
        return torch.einsum("bkp,bop->bk", x.flatten(2).to(weights.dtype), weights).to(x.dtype)


class ForgetGate(nn.Module):
    """``B x k x H x W`` -> a gate in (0, 1) a channel: sigmoid(W2 tanh(BN(W1 s))) of the attended features s."""

    def __init__(self, planes: int, hidden: int) -> None:
        super().__init__()
        self.attention = SpatialAttention(planes)
        self.reduce, self.bn, self.expand = nn.Linear(planes, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, planes)

    def forward(self, v: Tensor) -> Tensor:
        return self.expand(torch.tanh(self.bn(self.reduce(self.attention(v))))).sigmoid()


class UpdateGate(nn.Module):
    """``B x k x H x W`` -> ``B x k``: two depthwise branches, dilated 1 and 2, pooled by attention and mixed a channel.

    As in the released HCGNet, the pooled vectors are mixed, so what it adds is constant over positions.
    """

    def __init__(self, planes: int, hidden: int) -> None:
        super().__init__()
        self.near = PreActConv(planes, planes, 3, groups=planes)
        self.far = PreActConv(planes, planes, 3, groups=planes, dilation=2)
        self.near_attention, self.far_attention = SpatialAttention(planes), SpatialAttention(planes)
        self.reduce, self.bn = nn.Linear(2 * planes, hidden), nn.BatchNorm1d(hidden)
        self.near_score, self.far_score = nn.Linear(hidden, planes), nn.Linear(hidden, planes)

    def forward(self, v: Tensor) -> Tensor:
        near, far = self.near_attention(self.near(v)), self.far_attention(self.far(v))
        hidden = torch.tanh(self.bn(self.reduce(torch.cat([near, far], dim=1))))
        scores = torch.stack([self.near_score(hidden), self.far_score(hidden)]).softmax(0)
        return scores[0] * near + scores[1] * far


class SMG(nn.Module):
    """Squeeze, multi-scale, gate: x -> concat(x, v * forget(v) + update(v)), which adds ``growth`` channels."""

    def __init__(self, inplanes: int, growth: int) -> None:
        super().__init__()
        self.squeeze = PreActConv(inplanes, 4 * growth, 1)
        self.conv = PreActConv(4 * growth, growth, 3, groups=4)
        self.forget, self.update = ForgetGate(growth, growth // 2), UpdateGate(growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        v = self.conv(self.squeeze(x))
        return torch.cat([x, gated(v, self.forget(v), self.update(v))], dim=1)


class Transition(nn.Module):
    """An SMG that halves width and size and does not keep its input."""

    def __init__(self, inplanes: int) -> None:
        super().__init__()
        planes = inplanes // 2
        squeezed = inplanes - (inplanes - planes) // 2
        self.squeeze = PreActConv(inplanes, squeezed, 1)
        self.conv = PreActConv(squeezed, planes, 3, 2)
        self.forget, self.update = ForgetGate(planes, planes // 4), UpdateGate(planes, 2 * planes // 4)

    def forward(self, x: Tensor) -> Tensor:
        v = self.conv(self.squeeze(x))
        return gated(v, self.forget(v), self.update(v))


def gated(v: Tensor, forget: Tensor, update: Tensor) -> Tensor:
    """v * r + g, with one r and one g a channel."""
    return v * forget[:, :, None, None].to(v.dtype) + update[:, :, None, None].to(v.dtype)


def hcgnet_a1(num_classes: int) -> StagedBackbone:
    """Three blocks of 8 SMG modules with growth 12, 24 and 36. A transition begins a stage: the branches of Table 9
    have their own. Batch norm on pooled vectors needs two images or more a batch in training. No DropBlock.
    """
    planes = 24
    stages: list[OrderedDict[str, nn.Module]] = []
    for i, growth in enumerate((12, 24, 36), start=1):
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        if i == 1:
            stage["conv1"] = nn.Conv2d(3, planes, 3, padding=1, bias=False)
        else:
            stage[f"transition{i - 1}"] = Transition(planes)
            planes //= 2
        stage[f"block{i}"] = nn.Sequential(*(SMG(planes + j * growth, growth) for j in range(8)))
        planes += 8 * growth
        stages.append(stage)
    stages[-1] |= {"bn": nn.BatchNorm2d(planes), "relu": nn.ReLU()}
    return StagedBackbone(map(nn.Sequential, stages), nn.Linear(planes, num_classes), name="hcgnet_a1")
