"""The mean of the probabilities of several classifiers, or of an image and its mirror image, as one network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError

AVERAGE = "average:"
LARGEST = 100  # networks


def mean_as_logits(logits: Sequence[Tensor], *, several: bool = False) -> Tensor:
    """Logits ``B x N`` whose probabilities are the mean of those of ``logits``; of ``several`` labels, by sigmoids."""
    stacked = torch.stack([x.float() for x in logits])
    if several:
        return logsigmoid(stacked).logsumexp(0) - logsigmoid(-stacked).logsumexp(0)
    return stacked.log_softmax(2).logsumexp(0) - math.log(len(stacked))


class MeanOfProbabilities(nn.Module):
    """``members``, each from images to logits of one label an image, as one network that returns logits."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        return mean_as_logits([member(images) for member in self.members])


class WithMirror(nn.Module):
    """``model`` on an image and its mirror image: logits of the mean of their probabilities."""

    def __init__(self, model: nn.Module, *, several: bool = False) -> None:
        super().__init__()
        self.model, self.several = model, several

    def forward(self, images: Tensor) -> Tensor:
        return mean_as_logits([self.model(images), self.model(images.flip(3))], several=self.several)


def average_backbone(members: Sequence[StagedBackbone]) -> StagedBackbone:
    """The mean of the probabilities of ``members`` as one backbone, without stages; its name has theirs."""
    names = [(name, len(list(group))) for name, group in groupby(member.name for member in members)]
    backbone = StagedBackbone(
        [nn.Sequential(MeanOfProbabilities(members))], nn.Identity(), pool=nn.Identity(),
        name=AVERAGE + "+".join(f"{count}*{name}" for name, count in names),
        min_size=max(member.min_size for member in members), default_size=members[0].default_size,
    )  # fmt: skip
    backbone.uncut = "it is the average of several networks"
    backbone.fixed = any(member.fixed for member in members)
    return backbone


def build_average(name: str, build: Callable[[str], StagedBackbone]) -> StagedBackbone:
    """The backbone ``average:2*NAME+1*OTHER``, whose members ``build`` makes."""
    return average_backbone([build(member) for member in members_of(name)])


def members_of(name: str) -> list[str]:
    """The names of the members of ``average:2*NAME+1*OTHER``. Raises UserError for another form."""
    found = [re.fullmatch(r"([1-9][0-9]?)\*(.+)", part) for part in name.removeprefix(AVERAGE).split("+")]
    members = [match[2] for match in found if match for _ in range(int(match[1]))]
    if not all(found) or len(members) > LARGEST or any(member.startswith(AVERAGE) for member in members):
        raise UserError(f"{name!r} names no average of networks; mixskd average makes one of finished runs")
    return members
