"""StagedBackbone: an image classifier as stages, a pooling and a head (MixSKD, section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.heads import DeepHead, Head, as_head, exact
from mixskd.backbones.tokens import FeatureMap, average, spatial
from mixskd.errors import UserError


def widened(model: nn.Module, channels: int) -> nn.Module:
    """The new first convolution of ``model``, for images of ``channels`` channels. Raises UserError if it has none."""
    found = next(((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if found is None or found[1].in_channels != 3:
        raise UserError("the network does not begin with a convolution of 3 channels; leave data.channels out")
    path, old = found
    same: Any = {name: getattr(old, name) for name in ("out_channels", "kernel_size", "stride", "padding", "dilation")}
    convolution = nn.Conv2d(channels, **same, bias=old.bias is not None, device=old.weight.device)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, convolution)
    return convolution


class StagedBackbone(nn.Module):
    """An image classifier cut into K stages, a pooling and a head.

    Args:
        stages: phi_1 .. phi_K; the stem is part of phi_1, a final norm and activation part of phi_K, so that the last
            map is what is pooled. Named children give the keys of :meth:`export_state_dict`.
        head: any module from pooled features (``B x C``) to logits (``B x N``).
        name: as :func:`mixskd.backbones.build_backbone` takes it.
        min_size: smallest height and width of the images, in pixels.
        default_size: their usual height and width.
        initialise: applied to the whole net and to every fresh copy of stages, after PyTorch's own defaults.
        head_name: the head's key in an exported state dict.
        pool: from the last map to pooled features, ``B x C``; the mean over positions if None.
        in_channels: of the images.
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        head: nn.Module,
        *,
        name: str,
        min_size: int = 1,
        default_size: int = 32,
        initialise: Callable[[nn.Module], None] | None = None,
        head_name: str = "fc",
        pool: nn.Module | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = as_head(head)
        self.pool = pool
        self.name = name
        self.in_channels = in_channels
        self.min_size, self.default_size = min_size, default_size
        self.head_name = head_name
        self.pretrained = False  # whether it started from weights that exist
        self.fixed = False  # whether it takes images of ``default_size`` alone
        self.uncut = ""  # why it has no stages, for a net that is used as a whole
        self._initialise = initialise
        if initialise is not None:
            initialise(self)
        if isinstance(head, nn.Linear):
            self.feature_dim, self.num_classes = head.in_features, head.out_features
        else:
            self.feature_dim, self.num_classes = self._channels_of(
                lambda net, x: [features := net.pooled(net.feature_maps(x)[-1]), net.head(features)]
            )

    def feature_maps(self, x: Tensor) -> list[FeatureMap]:
        """The K stage maps, ``B x C_k x H_k x W_k``, of images ``B x C x H x W``; a grid of tokens is a map.

        A net with a class token gives a :class:`~mixskd.backbones.tokens.TokenMap`, which carries it with the grid.
        """
        maps, state = [], x
        for stage in self.stages:
            state = stage(state)
            maps.append(state)
        return maps

    def stage_channels(self) -> list[int]:
        """C_1 .. C_K, the channels of the stage maps."""
        return self._channels_of(lambda net, x: map(spatial, net.feature_maps(x)))

    def pooled(self, feature_map: FeatureMap) -> Tensor:
        """The input of the head, ``B x C``, from the last map: by ``pool``, or as the mean over positions in fp32."""
        if self.pool is None:
            return average(feature_map)
        with exact(spatial(feature_map)):
            return self.pool(feature_map)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``B x N`` of images ``B x C x H x W``."""
        return self.head(self.pooled(self.feature_maps(x)[-1]))

    def maps_and_logits(self, x: Tensor) -> tuple[list[FeatureMap], Tensor]:
        """The K stage maps and the logits of images ``B x C x H x W``."""
        maps = self.feature_maps(x)
        return maps, self.head(self.pooled(maps[-1]))

    def take_channels(self, channels: int) -> None:
        """Give the net a new first convolution for images of ``channels`` channels."""
        if channels != self.in_channels:
            convolution = widened(self.stages[0], channels)
            if self._initialise is not None:
                self._initialise(convolution)
            self.in_channels = channels

    def require_stages(self, user: str) -> None:
        """Raise UserError if the net could not be cut into stages; ``user`` is what needs them."""
        if self.uncut:
            raise UserError(
                f"{user} needs the stages of a network, and {self.name} has none: {self.uncut}; "
                "take another backbone, or a method without branches and maps, such as baseline or mixup"
            )

    def require_features(self, user: str) -> None:
        """Raise UserError if the net gives logits alone and no features; ``user`` is what needs features."""
        if isinstance(self.head, DeepHead) and isinstance(self.head.module, nn.Identity):
            raise UserError(f"{user} needs the features before the classifier, and {self.name} gives only logits")

    def fresh_tail(self, k: int) -> nn.Sequential:
        """A re-initialised copy of phi_{k+1} .. phi_K, the alignment module of branch k (1-based)."""
        tail = nn.Sequential(*(copy.deepcopy(stage) for stage in self.stages[k:]))
        self._reset(tail)
        return tail

    def fresh_head(self) -> nn.Module:
        """A re-initialised copy of the head, the classifier of a branch."""
        if isinstance(self.head, Head):
            return Head(self.feature_dim, self.num_classes)
        head = copy.deepcopy(self.head)
        self._reset(head)
        return head

    def fresh_branches(self) -> tuple[list[nn.Sequential], list[nn.Module]]:
        """The tails and heads of the branches 1 .. K-1."""
        self.require_stages("an auxiliary branch")
        branches = range(1, len(self.stages))
        return [self.fresh_tail(k) for k in branches], [self.fresh_head() for _ in branches]

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights with the architecture's usual keys (torchvision's for the ResNets)."""
        return {self._exported(key): value for key, value in self.state_dict().items()}

    def load_export_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`export_state_dict`. Raises RuntimeError if keys or shapes differ."""
        internal = {self._exported(key): key for key in self.state_dict()}
        self.load_state_dict({internal.get(key, key): value for key, value in state.items()})

    def head_keys(self) -> set[str]:
        """The exported keys of the classifier's last layers, whose shapes depend on the number of classes."""
        last = [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] == self.num_classes
        ]
        layers = [name for name in last if name.startswith("head")] or last[-1:]
        own = self.state_dict()
        return {self._exported(key) for name in layers for key in (f"{name}.weight", f"{name}.bias") if key in own}

    def _exported(self, key: str) -> str:
        if key.startswith("stages."):
            return key.split(".", 2)[2]
        return key.replace("head.module." if key.startswith("head.module.") else "head.", f"{self.head_name}.", 1)

    def _reset(self, modules: nn.Module) -> None:
        modules.requires_grad_(True)
        for module in modules.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        if self._initialise is not None:
            self._initialise(modules)

    def _channels_of(self, compute: Callable[[StagedBackbone, Tensor], Iterable[Tensor]]) -> list[int]:
        """The channels of the tensors that ``compute`` returns for images, from a copy on the meta device."""
        probe = copy.deepcopy(self).to("meta").eval()
        size = max(self.min_size, 32)
        return [y.shape[1] for y in compute(probe, torch.empty(2, self.in_channels, size, size, device="meta"))]
