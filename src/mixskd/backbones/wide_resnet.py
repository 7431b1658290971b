"""Wide residual networks for 32 px (Zagoruyko & Komodakis, BMVC 2016; MixSKD, Table 7)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from mixskd.backbones.resnet import PreActBlock
from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError

DEEPEST, WIDEST = 1000, 64


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
