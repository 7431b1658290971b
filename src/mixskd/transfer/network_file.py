"""model.safetensors of a detector or a segmentation network: its weights, and in the metadata how to use them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from mixskd.artifacts.described_file import check_weights_finite, read_described
from mixskd.backbones import build_backbone, check_local
from mixskd.config.build import make_config
from mixskd.config.registry import NETWORKS
from mixskd.config.schema import Mismatch, anything, choice, integer, items, number, record, string, table
from mixskd.data.bundle import MOST_CLASSES
from mixskd.errors import UserError
from mixskd.runtime.files import replacing
from mixskd.transfer.segmentation.model import DeepLabV3

FORMAT = "mixskd-network-1"
SCHEMA = record(
    {
        "format": string(),
        "network": choice(*NETWORKS),
        "backbone": string(200),
        "classes": items(string(), 1, MOST_CLASSES),
        "mean": items(number(), 3, 3),
        "std": items(number(above=0), 3, 3),
        "options": table(anything),
        "category_ids": items(integer()),
    },
    closed=True,
)


@dataclass(frozen=True)
class About:
    """What a network file says of itself: ``options`` are those of the method, ``category_ids`` those of the data."""

    network: str
    backbone: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)
    category_ids: tuple[int, ...] = ()

    @property
    def config(self) -> Any:
        """The settings of the network and its data."""
        return make_config(NETWORKS[self.network].Config, self.options)


def save_network(model: nn.Module, path: Path, about: About) -> None:
    """Write ``model``; a DeepLabV3 under torchvision's keys. Raises UserError on a full disk."""
    state = model.export_state_dict() if isinstance(model, DeepLabV3) else model.state_dict()
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(about)})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"mixskd": text})


def load_network(path: str | Path) -> tuple[nn.Module, About]:
    """The network in a run folder or file, in evaluation mode, and what it says of itself.

    Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not a network of mixskd.
    """
    path, said, tensors = read_described(path)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise UserError(
            f"{path} holds no detector and no segmentation network of mixskd; `mixskd predict` takes classifiers"
        )
    try:
        SCHEMA(said, "")
    except Mismatch as error:
        raise UserError(f"{path} is damaged: {error}; copy or train it again") from None
    check_local(said["backbone"])
    check_weights_finite(path, tensors)
    try:
        values: dict[str, Any] = {
            key: tuple(x) if isinstance(x, list) else x for key, x in said.items() if key != "format"
        }
        about = About(**values)
        backbone = build_backbone(about.backbone, 2)
        model = NETWORKS[about.network](backbone, len(about.classes), about.config).backbone
        if isinstance(model, DeepLabV3):
            model.load_export_state_dict(tensors)
        else:
            model.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError):
        raise UserError(f"{path} is damaged: its weights do not fit the network that it names") from None
    return model.eval(), about
