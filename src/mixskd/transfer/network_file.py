"""model.safetensors of a detector or a segmentation network: weights, and a description in the metadata."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from torch import Tensor, nn

from mixskd.artifacts.described_weights import description_as, fitted, read_described, write_described
from mixskd.backbones import build_backbone, check_local
from mixskd.config.build import make_config
from mixskd.config.records import Integer, Number, PositiveNumber, ShortText, Text
from mixskd.config.registry import NETWORKS
from mixskd.data.bundle import MOST_CLASSES
from mixskd.errors import UserError
from mixskd.errors.text import shown
from mixskd.transfer.pipeline import Pipeline, pipeline_of

FORMAT: Literal["mixskd-network-2"] = "mixskd-network-2"
OLDER = "mixskd-network-1"  # without a digest


class NetworkDescription(Struct, forbid_unknown_fields=True, frozen=True):
    """The description in a network file: ``options`` are those of the method, ``category_ids`` those of the data."""

    network: ShortText
    backbone: ShortText
    classes: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    mean: Annotated[tuple[Number, ...], Meta(min_length=3, max_length=3)]
    std: Annotated[tuple[PositiveNumber, ...], Meta(min_length=3, max_length=3)]
    options: dict[Text, Any] = {}
    category_ids: tuple[Integer, ...] = ()
    format: Literal["mixskd-network-1", "mixskd-network-2"] = FORMAT
    digest: Text = ""

    @property
    def config(self) -> Any:
        """The settings of the network and its data."""
        return make_config(NETWORKS[self.network].Config, self.options)

    def pipeline(self, **settings: Any) -> Pipeline:
        """How the network takes images; ``settings`` override those with which it was trained."""
        return pipeline_of(dataclasses.replace(self.config, **settings), self.mean, self.std)


def save_network(model: Any, path: Path, about: NetworkDescription) -> None:
    """Write ``model`` and its description. Raises UserError on a full disk."""
    write_described(path, {**msgspec.to_builtins(about), "format": FORMAT}, model.export_state_dict())


def read_network(path: str | Path) -> tuple[NetworkDescription, dict[str, Tensor]]:
    """The description and the weights of the network in a run folder or file.

    Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not a network of mixskd.
    """
    path, description, tensors = read_described(path)
    known = description.get("format") if isinstance(description, dict) else None
    if known not in (FORMAT, OLDER):
        raise UserError(
            f"{path} holds no detector and no segmentation network of mixskd; `mixskd predict` takes classifiers"
        )
    digest = known != OLDER or "digest" in description
    about = description_as(NetworkDescription, path, description, tensors, digest=digest)
    if about.network not in NETWORKS:
        raise UserError(f"{path} is damaged: network must be one of {', '.join(NETWORKS)}, not {shown(about.network)}")
    check_local(about.backbone)
    return about, tensors


def load_network(path: str | Path) -> tuple[nn.Module, NetworkDescription]:
    """The network in a run folder or file, in evaluation mode, and its description.

    Raises UserError as :func:`read_network` does, and for weights that do not fit.
    """
    about, tensors = read_network(path)

    def untrained() -> Any:
        return NETWORKS[about.network](build_backbone(about.backbone, 2), len(about.classes), about.config).backbone

    return fitted(path, untrained, tensors).eval(), about
