"""ResNets: torchvision's own nets cut into stages, with a 7x7 stem for 224 px or a 3x3 stem for 32 px."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError

LAYOUTS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}
DEEPEST, WIDEST = 1000, 64  # of the Wide ResNets


def resnet(num_classes: int, *, name: str) -> StagedBackbone:
    """A ResNet for 224 px (v1.5: the stride on the 3x3), Kaiming fan-out initialisation (MixSKD, Tables 10 and 11)."""
    net = ResNet(*LAYOUTS[name], num_classes=num_classes)
    stem = OrderedDict(conv1=net.conv1, bn1=net.bn1, relu=net.relu, maxpool=net.maxpool)
    return StagedBackbone(_stages(stem, _layers(net)), net.fc, name=name, default_size=224, initialise=_kaiming_fan_out)


def cifar_resnet(num_classes: int, *, name: str, stem_relu: bool = True) -> StagedBackbone:
    """A ResNet for 32 px (MixSKD, Table 6): 3x3 stem without pooling, post-activation, PyTorch's initialisation.

    ``stem_relu=False`` drops the ReLU after the stem's batch norm, as in the released MixSKD net.
    """
    net = ResNet(*LAYOUTS[name.removeprefix("cifar_").removesuffix("_linear_stem")], num_classes=num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    stem = OrderedDict[str, nn.Module](conv1=nn.Conv2d(3, 64, 3, padding=1, bias=False), bn1=net.bn1)
    if stem_relu:
        stem["relu"] = net.relu
    return StagedBackbone(_stages(stem, _layers(net)), net.fc, name=name)


class PreActBlock(nn.Module):
    """BN-ReLU-conv3x3 twice; where the shape changes, the shortcut is a bare 1x1 convolution of the activated input."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inplanes), nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(planes), nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        changes = stride > 1 or inplanes != planes
        self.shortcut = nn.Conv2d(inplanes, planes, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(torch.relu(self.bn2(self.conv1(y))))
        return y + residual


def cifar_preact_resnet18(num_classes: int) -> StagedBackbone:
    """The pre-activation ResNet-18 that the released code gives to MixSKD's peers; no norm before the pooling."""
    stem = OrderedDict[str, nn.Module](conv1=nn.Conv2d(3, 64, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(64))
    stem["relu"] = nn.ReLU()
    layers = [
        nn.Sequential(PreActBlock(inner, outer, 1 if inner == outer else 2), PreActBlock(outer, outer, 1))
        for inner, outer in pairwise([64, 64, 128, 256, 512])
    ]
    return StagedBackbone(_stages(stem, layers), nn.Linear(512, num_classes), name="cifar_preact_resnet18")


def _stages(stem: OrderedDict[str, nn.Module], layers: Sequence[nn.Module]) -> list[nn.Module]:
    """``stem`` and ``layers`` as stages with the keys of torchvision."""
    named = [OrderedDict({f"layer{i}": layer}) for i, layer in enumerate(layers, start=1)]
    return [nn.Sequential(stem | named[0]), *map(nn.Sequential, named[1:])]


def _layers(net: ResNet) -> list[nn.Module]:
    return [net.layer1, net.layer2, net.layer3, net.layer4]


def _kaiming_fan_out(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")


RESNETS: dict[str, Callable[[int], StagedBackbone]] = {name: partial(resnet, name=name) for name in LAYOUTS}
CIFAR_RESNETS: dict[str, Callable[[int], StagedBackbone]] = {
    "cifar_resnet18": partial(cifar_resnet, name="cifar_resnet18"),
    "cifar_resnet50": partial(cifar_resnet, name="cifar_resnet50"),
    "cifar_resnet18_linear_stem": partial(cifar_resnet, name="cifar_resnet18_linear_stem", stem_relu=False),
    "cifar_preact_resnet18": cifar_preact_resnet18,
}


def wide_resnet(num_classes: int, *, depth: int = 16, width: int = 2) -> StagedBackbone:
    """WRN-``depth``-``width``: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times ``width`` channels.

    Raises UserError for a depth that is not 6 n + 4, or a net beyond all use (deeper than 1000, wider than 64).
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1 or width < 1:
        raise UserError(f"wrn_{depth}_{width}: the depth must be 6 n + 4 (10, 16, 22, 28, 40 ...), the width 1 or more")
    if depth > DEEPEST or width > WIDEST:
        raise UserError(
            f"wrn_{depth}_{width} is too large: a depth up to {DEEPEST} and a width up to {WIDEST} are built"
        )
    widths = [16, 16 * width, 32 * width, 64 * width]
    stages = []
    for i in range(3):
        group = [PreActBlock(widths[i], widths[i + 1], 1 if i == 0 else 2)]
        group += [PreActBlock(widths[i + 1], widths[i + 1], 1) for _ in range(blocks - 1)]
        stages.append(OrderedDict[str, nn.Module]([(f"group{i + 1}", nn.Sequential(*group))]))
    stages[0] = OrderedDict([("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False)), *stages[0].items()])
    stages[-1] |= {"bn": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU()}
    head = nn.Linear(widths[-1], num_classes)
    return StagedBackbone(map(nn.Sequential, stages), head, name=f"wrn_{depth}_{width}")
