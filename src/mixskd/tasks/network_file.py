"""model.safetensors of a detector or a segmentation network: its weights, and in the metadata how to use them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mixskd.backbones import build_backbone
from mixskd.errors import UserError
from mixskd.files import check_readable, replacing
from mixskd.methods import make_config
from mixskd.tasks.networks import NETWORKS
from mixskd.tasks.segmentation.model import DeepLabV3

FORMAT = "mixskd-network-1"


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
        try:
            save_file(tensors, temporary, metadata={"mixskd": text})
        except SafetensorError as error:
            raise UserError(f"cannot write {path}: {error}; is the disk full?") from None


def load_network(path: str | Path) -> tuple[nn.Module, About]:
    """The network in a run folder or file, in evaluation mode, and what it says of itself.

    Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not a network of mixskd.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    check_readable(path, f"no model at {path}; give a finished run's folder or a .safetensors file that mixskd wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is corrupt or truncated, or no safetensors file; copy or train it again") from None
    try:
        values: dict[str, Any] = json.loads(metadata.get("mixskd", "{}"))
        if values.pop("format", None) != FORMAT:
            raise UserError(f"{path} holds no detector and no segmentation network of mixskd; `mixskd predict` takes "
                            "classifiers")  # fmt: skip
        values.update({key: tuple(value) for key, value in values.items() if isinstance(value, list)})
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
