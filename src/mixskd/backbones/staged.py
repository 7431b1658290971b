"""A backbone is stages and a head: f = g o GAP o phi_K o .. o phi_1 (MixSKD, section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn


class Head(nn.Linear):
    """A linear classifier that computes in the type of its weights, whatever autocast there is around it."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Head:
        """``linear`` as a Head: the same parameters."""
        with torch.device("meta"):
            head = cls(linear.in_features, linear.out_features)
        head.weight, head.bias = linear.weight, linear.bias
        return head

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class StagedBackbone(nn.Module):
    """An image classifier cut into K stages and a linear head.

    Args:
        stages: phi_1 .. phi_K; the stem is part of phi_1, a final norm and activation part of phi_K, so that the last
            map is the tensor that is pooled. Named children give the keys of :meth:`export_state_dict`.
        head: linear, from pooled features (``B x C``) to logits (``B x N``).
        name: as :func:`mixskd.backbones.build_backbone` takes it.
        min_size: smallest height and width of the images, in pixels.
        default_size: their usual height and width.
        initialise: applied to the whole net and to every fresh copy of stages, after PyTorch's own defaults.
        head_name: the head's key in an exported state dict.
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        head: nn.Linear,
        *,
        name: str,
        min_size: int = 1,
        default_size: int = 32,
        initialise: Callable[[nn.Module], None] | None = None,
        head_name: str = "fc",
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = Head.of(head)
        self.name = name
        self.in_channels = 3
        self.feature_dim, self.num_classes = head.in_features, head.out_features
        self.min_size, self.default_size = min_size, default_size
        self.head_name = head_name
        self.pretrained = False  # whether it started from weights that exist
        self._initialise = initialise
        if initialise is not None:
            initialise(self)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The K stage maps, ``B x C_k x H_k x W_k``, of images ``B x 3 x H x W``."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def stage_channels(self) -> list[int]:
        """C_1 .. C_K, the channels of the stage maps."""
        probe = copy.deepcopy(self).to("meta").eval()
        size = max(self.min_size, 32)
        return [f.shape[1] for f in probe.feature_maps(torch.empty(2, self.in_channels, size, size, device="meta"))]

    @staticmethod
    def pooled(feature_map: Tensor) -> Tensor:
        """The global average of a map, ``B x C``, in at least fp32."""
        return feature_map.mean((2, 3), dtype=torch.promote_types(feature_map.dtype, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``B x N`` of images ``B x 3 x H x W``."""
        return self.head(self.pooled(self.feature_maps(x)[-1]))

    def fresh_tail(self, k: int) -> nn.Sequential:
        """A re-initialised copy of phi_{k+1} .. phi_K, the alignment module of branch k (1-based)."""
        tail = nn.Sequential(*(copy.deepcopy(stage) for stage in self.stages[k:])).requires_grad_(True)
        for module in tail.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        if self._initialise is not None:
            self._initialise(tail)
        return tail

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights under the architecture's customary names (torchvision's, for the ResNets)."""
        return {self._exported(key): value for key, value in self.state_dict().items()}

    def load_export_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`export_state_dict` gave. Raises RuntimeError if keys or shapes differ."""
        internal = {self._exported(key): key for key in self.state_dict()}
        self.load_state_dict({internal.get(key, key): value for key, value in state.items()})

    def _exported(self, key: str) -> str:
        if key.startswith("stages."):
            return key.split(".", 2)[2]
        return key.replace("head.", f"{self.head_name}.", 1)
