"""model.safetensors of a detector or a segmentation network: weights, and a description in the metadata."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta, Struct
from safetensors.torch import save_file
from torch import Tensor, nn

from mixskd.artifacts.model_file import check_digest, check_weights_finite, content_digest, forms, read_described
from mixskd.backbones import build_backbone, check_local
from mixskd.config.build import make_config
from mixskd.config.records import Integer, Mismatch, Number, PositiveNumber, ShortText, Text, read_record
from mixskd.config.registry import NETWORKS
from mixskd.data.bundle import MOST_CLASSES
from mixskd.errors import UserError
from mixskd.errors.text import shown
from mixskd.runtime.files import replacing
from mixskd.transfer.pipeline import Pipeline, pipeline_of
from mixskd.transfer.segmentation.model import DeepLabV3

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


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights of ``model`` under the keys of its file; those of a DeepLabV3 are torchvision's."""
    return model.export_state_dict() if isinstance(model, DeepLabV3) else model.state_dict()


def save_network(model: nn.Module, path: Path, about: NetworkDescription) -> None:
    """Write ``model`` and its description. Raises UserError on a full disk."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state_of(model).items()}
    description = {**msgspec.to_builtins(about), "format": FORMAT}
    text = json.dumps({**description, "digest": content_digest(description, tensors)})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"mixskd": text})


def read_network(path: str | Path) -> tuple[NetworkDescription, dict[str, Tensor]]:
    """The description and the weights of the network in a run folder or file.

    Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not a network of mixskd.
    """
    path, description, tensors = read_described(path)
    if not isinstance(description, dict) or description.get("format") not in (FORMAT, OLDER):
        raise UserError(
            f"{path} holds no detector and no segmentation network of mixskd; `mixskd predict` takes classifiers"
        )
    try:
        about = read_record(description, NetworkDescription)
        if about.network not in NETWORKS:
            raise Mismatch(f"network must be one of {', '.join(NETWORKS)}, not {shown(about.network)}")
        if about.format != OLDER or "digest" in description:
            check_digest(description, tensors)
    except ValueError as error:  # Mismatch, and what digest_of refuses
        raise UserError(f"{path} is damaged: {error}; copy or train it again") from None
    check_local(about.backbone)
    check_weights_finite(path, tensors)
    return about, tensors


def load_network(path: str | Path) -> tuple[nn.Module, NetworkDescription]:
    """The network in a run folder or file, in evaluation mode, and its description.

    Raises UserError as :func:`read_network` does, and for weights that do not fit.
    """
    about, tensors = read_network(path)
    try:
        with torch.device("meta"):  # no memory is taken for what the file does not hold
            wanted = state_of(_untrained(about))
        if forms(wanted) != forms(tensors):
            raise ValueError("other keys or shapes")
        model = _untrained(about)
        if isinstance(model, DeepLabV3):
            model.load_export_state_dict(tensors)
        else:
            model.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError):
        raise UserError(f"{path} is damaged: its weights do not fit the network that it names") from None
    return model.eval(), about


def _untrained(about: NetworkDescription) -> nn.Module:
    network: nn.Module = NETWORKS[about.network](build_backbone(about.backbone, 2), len(about.classes), about.config)
    return network.get_submodule("backbone")
