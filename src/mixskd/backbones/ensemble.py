"""The mean of several networks' probabilities as one network (deep ensembles, Lakshminarayanan et al., 2017)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError

ONE_LABEL, SEVERAL = "ensemble/", "multilabel_ensemble/"  # then the members: ensemble/resnet18+resnet18
MOST = 32  # members


def mean_of_probabilities(logits: Tensor, *, several: bool) -> Tensor:
    """The logits ``B x N`` whose probabilities are the mean of those of ``logits``, ``K x B x N``.

    For one label an image: the log of the mean softmax. For ``several``: log(p / (1 - p)) of the mean sigmoid p.
    """
    if several:
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


class Mean(nn.Module):
    """The logits of the mean probabilities of ``members`` for the same images."""

    def __init__(self, members: Sequence[nn.Module], *, several: bool) -> None:
        super().__init__()
        self.members, self.several = nn.ModuleList(members), several

    def forward(self, x: Tensor) -> Tensor:
        return mean_of_probabilities(torch.stack([member(x) for member in self.members]), several=self.several)


class Flips(nn.Module):
    """``network`` with test-time flips: the logits of the mean probabilities of an image and its mirror image."""

    def __init__(self, network: nn.Module, *, several: bool) -> None:
        super().__init__()
        self.network, self.several = network, several

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.network(x), self.network(x.flip(3))])
        return mean_of_probabilities(both, several=self.several)


class Ensemble(StagedBackbone):
    """The mean of the probabilities of ``members`` as one network of one stage, which gives logits.

    The exported keys are those of each member behind its number: ``0.conv1.weight``.
    """

    def __init__(self, members: Sequence[StagedBackbone], name: str) -> None:
        mean = Mean(members, several=name.startswith(SEVERAL))
        size = max(member.min_size for member in members)
        super().__init__(
            [mean], nn.Identity(), name=name, min_size=size, default_size=members[0].default_size, pool=nn.Identity(),
            in_channels=members[0].in_channels,
        )  # fmt: skip
        self.fixed = any(member.fixed for member in members)
        self.uncut = "it is the mean of several networks"

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.stages[0](x)  # torch.export cannot have the empty pooling and head without autocast
        return logits

    def _exported(self, key: str) -> str:
        number, own = key.removeprefix("stages.0.members.").split(".", 1)
        member: StagedBackbone = self.get_submodule(f"stages.0.members.{number}")  # type: ignore[assignment]
        return f"{number}.{member._exported(own)}"


def ensemble_name(members: Sequence[str], *, several: bool) -> str:
    """The name of the ensemble of the backbones ``members``. Raises UserError as :func:`check_members` does."""
    check_members(members)
    return (SEVERAL if several else ONE_LABEL) + "+".join(members)


def check_members(members: Sequence[str]) -> None:
    """Raises UserError if the backbones ``members`` are too many, or if one of them is an ensemble itself."""
    if odd := next((name for name in members if "+" in name or is_ensemble(name)), None):
        raise UserError(f"{odd} cannot be averaged further; name the runs that it was made of")
    if len(members) > MOST:
        raise UserError(f"an average has at most {MOST} members, not {len(members)}")


def is_ensemble(name: str) -> bool:
    """Whether ``name`` is that of an ensemble."""
    return name.startswith((ONE_LABEL, SEVERAL))


def members_of(name: str) -> list[str]:
    """The backbones of the ensemble ``name``. Raises UserError as :func:`check_members` does."""
    members = name.partition("/")[2].split("+")
    check_members(members)
    return members
